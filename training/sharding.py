"""Fully sharded training (FSDP2; Zhao et al. 2023): parameters, gradients and optimizer state in parts over processes.

A model is sharded block by block, so that only one block's weights are whole at a time. What is saved is whole
tensors under their plain names, so a run can go on with another number of processes, or with none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def shard(model: nn.Module, optimizer: Optimizer, units: Sequence[nn.Module], methods: Sequence[str] = ()) -> None:
    """Shards a model in place over all processes, with the optimizer that was made for it.

    Args:
        model: on its device, the same in every process.
        optimizer: over the model's parameters; its state, if it has any, is sharded too.
        units: the modules whose parameters are gathered together, such as the blocks; the rest is one more unit.
        methods: other methods of the model that run it, beside ``forward``.
    """
    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    before = dict(model.named_parameters())
    for unit in units:
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for method in methods:
        register_fsdp_forward_method(model, method)

    after = dict(model.named_parameters())
    replacement = {id(parameter): after[name] for name, parameter in before.items()}
    for group in optimizer.param_groups:
        group["params"] = [replacement[id(parameter)] for parameter in group["params"]]
    for name, old in before.items():
        state = optimizer.state.pop(old, None)
        if state is not None:
            new = after[name]
            assert isinstance(new, DTensor)
            optimizer.state[new] = {
                key: distribute_tensor(value, new.device_mesh, new.placements) if isinstance(value, Tensor) else value
                for key, value in state.items()
            }


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor with all of its parts; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Makes the parameters of a sharded model whole for a while; every process must enter. No effect on others."""
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()

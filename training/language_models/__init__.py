"""Language models on long text: pretraining, and measuring on whole documents."""

"""Training of the bundled model: data, pretraining, reconstruction and alignment."""

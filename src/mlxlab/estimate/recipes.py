"""Recommended settings by size of the model and by memory of the machine. Starting points, not measured optima."""

LEARNING_RATES = {  # peak, AdamW: of new weights by model/size; of pretrained ones see `FINE_TUNING_RATES`
    "nano": 1e-3,
    "tiny": 1e-3,
    "small": 5e-4,
    "medium": 5e-4,
    "large": 3e-4,
    "xlarge": 3e-4,
}
FINE_TUNING_RATES = {"encoders": "2e-5", "decoders": "5e-5 to 1e-4"}
BY_MEMORY = {  # of streamed text: rows of a batch in micro-batches, records in the window of the shuffle
    "below 8 GB": "data.batch_size=64 trainer.step.accumulate=8 trainer.step.dtype=bfloat16 data.shuffle.window=5000",
    "8 to 16 GB": "data.batch_size=128 trainer.step.accumulate=4 data.shuffle.window=10000",
    "above 16 GB": "data.batch_size=128 trainer.step.accumulate=2 data.shuffle.window=50000",
}

"""Data sets as batches of NumPy arrays; MLX is not imported here.

1. A source yields rows (`sources`): documents in windows (`text`), or labelled rows that are read whole (`labelled`).
2. A tokenizer turns them into ids (`tokenizers`); text is packed into rows of equal length (`text/batches`).
3. A loader shuffles and batches them (`loader`, `text/batches`); its order is a function of (seed, epoch).
4. Wrappers prepare batches in the background or repeat the first ones (`wrappers`); all are a `BatchIterator` (`batch`).
5. The data set class puts this together as a `DataModule` (`dataset`): splits, task, tokenizer, fingerprint.
"""

"""Images: from the hub, a folder or arrays to batches on a device.

From outside: `loading.load`, for data of one's own `own.given` and `own.load`, `augmentation.DataError`,
`contract.Data`. May import machine and embedded.
"""

"""A server on this machine that speaks S3, and what its buckets hold."""

import socket
from contextlib import contextmanager


@contextmanager
def object_server():
    """Yields the address of a server that keeps its objects in memory."""
    from moto.server import ThreadedMotoServer

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    running.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.stop()


def keys_for(address):
    """The variables by which a process finds the server."""
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": address, **keys}


def empty_bucket(name):
    """Makes a bucket, or empties it; returns the file system."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # those of other servers
    files = s3fs.S3FileSystem(use_listings_cache=False)
    if files.exists(name):
        files.rm(name, recursive=True)
    files.mkdir(name)
    return files


def objects(files, folder):
    """The bytes of each object in a folder, by its name in it."""
    return {path.removeprefix(f"{folder}/"): files.cat_file(path) for path in files.find(folder)}

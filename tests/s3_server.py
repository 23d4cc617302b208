"""moto's S3-compatible server as a process of its own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import process

from wavecity.flows.bench.prefect_server import free_port

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def s3_server(bucket: str, log: Path) -> Iterator[dict[str, str]]:
    """Run the server with one bucket; yields the environment that reaches it."""
    import boto3
    from botocore.config import Config

    port = free_port()
    # Nothing it holds is worth waiting for at the end.
    with process([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], log, patience=0.0):
        url = f"http://127.0.0.1:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=url,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 12, "mode": "standard"}),  # until the server is up
        )
        client.create_bucket(Bucket=bucket)
        yield {**CREDENTIALS, "AWS_ENDPOINT_URL": url}

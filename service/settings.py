"""The settings of a server: the only reader of the environment.

Each is an environment variable that starts with `LMTUNE_`; docs/operations.md lists them.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, IPvAnyNetwork
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What a server reads at its start; nothing changes afterwards."""

    model_config = SettingsConfigDict(env_prefix="LMTUNE_", frozen=True, extra="ignore")

    home: Path = Field(Path(".lmtune"), description="folder of the database, token, blobs, logs")
    database_url: str = Field(
        "", description="SQLAlchemy URL; empty: a SQLite file in the home folder"
    )
    blobs: Path | None = Field(None, description="folder of checkpoints and texts, shared by all")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65_535, description="port to listen on; 0: any free one")
    public_url: str = Field(
        "", description="address that workers elsewhere reach it by, as https://tune.example.org"
    )
    allow_http: bool = Field(
        False, description="listen beyond loopback without TLS (behind a proxy that has it)"
    )
    trusted_proxies: list[IPvAnyNetwork] = Field(
        default_factory=list,
        description="addresses or networks of proxies elsewhere that say a call came by TLS (JSON)",
    )
    allowed_hosts: list[str] = Field(
        default_factory=list, description="further host names that browsers may call it by (JSON)"
    )
    launcher: Literal["local", "ray", "slurm"] = Field(
        "local", description="what starts workers: this machine, or a cluster"
    )
    launcher_options: dict[str, Any] = Field(
        default_factory=dict,
        description="what the launcher is told of its workers and its cluster (JSON)",
    )
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        "auto",
        description="workers at most; auto: one per GPU, or one on the CPU; 0: none",
    )
    lease_seconds: float = Field(60.0, gt=0, le=86_400, description="lease of an attempt [s]")
    max_blob_bytes: int = Field(4 << 30, ge=1, description="cap of one upload [bytes]")
    max_blobs_bytes: int = Field(0, ge=0, description="cap of all blobs [bytes]; 0: the disk")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @cached_property
    def url(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{(self.home / 'lmtune.db').absolute()}"

    @cached_property
    def blob_folder(self) -> Path:
        """Where blobs lie."""
        return self.blobs or self.home / "blobs"

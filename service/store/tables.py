"""lmtune's own tables; Optuna's stand beside them under Optuna's names.

Times are seconds since 1970 in UTC, save those ending in `_t`, which are lease time
(service/leases.py). Hashes are SHA-256 in hex.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()
Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only INTEGER keys by itself

studies = Table(
    "lmtune_studies",
    metadata,
    Column("id", Id, primary_key=True),
    Column("optuna_id", Integer, nullable=False),
    Column("name", String(64), nullable=False, unique=True),
    Column("spec", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(200)),  # why PAUSED, ENDING or ENDED
    Column("error", Text),  # the first error, when failing
    Column("archived", Boolean, nullable=False, default=False),
    Column("created_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("ran_seconds", Float, nullable=False, default=0.0),  # before `running_since_t`
    Column("running_since_t", Float),  # null unless RUNNING
    Column("revision", Integer, nullable=False, default=0),
)

trials = Table(
    "lmtune_trials",
    metadata,
    Column("id", Id, primary_key=True),
    Column("study_id", ForeignKey("lmtune_studies.id"), nullable=False),
    Column("number", Integer, nullable=False),  # Optuna's number
    Column("optuna_id", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("desired", String(8), nullable=False, default="run"),
    Column("desired_t", Float),  # when it last changed; null: never
    Column("reason", Text),
    Column("paused_by", String(16)),  # study, scheduler; of a RUNNING trial: who asked it to pause
    Column("promoted_step", Integer, nullable=False, default=0),  # rung it was promoted from last
    Column("params", JSON, nullable=False),
    Column("step", Integer, nullable=False, default=0),  # last visible step
    Column("value", Float),  # objective at `step`; null where it is not finite
    Column("max_step", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, default=0),  # the fencing token
    Column("lease_hash", String(64)),
    Column("lease_until_t", Float),
    Column("progress_step", Integer, nullable=False, default=0),
    Column("progress_t", Float),
    Column("worker_id", ForeignKey("lmtune_workers.id")),
    Column("failures", Integer, nullable=False, default=0),  # in a row without a newer checkpoint
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("revision", Integer, nullable=False),  # the study's, at the last change of state
    UniqueConstraint("study_id", "number"),
    Index("lmtune_trials_by_state", "study_id", "state", "value"),
    Index("lmtune_trials_by_revision", "study_id", "revision"),
    Index("lmtune_trials_by_worker", "worker_id", "state"),
)

attempts = Table(
    "lmtune_attempts",
    metadata,
    Column("trial_id", ForeignKey("lmtune_trials.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("worker_id", ForeignKey("lmtune_workers.id"), nullable=False),
    Column("claim_seq", Integer, nullable=False),
    Column("lease_hash", String(64), nullable=False),
    Column("start_step", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("outcome", String(16)),  # null while it is live
    Column("reason", Text),
    Column("finish", JSON(none_as_null=True)),  # what the worker said, and the answer it got
    Column("environment", JSON(none_as_null=True)),
    Column("log", Text),
    Index("lmtune_attempts_by_claim", "worker_id", "claim_seq"),
)

reports = Table(
    "lmtune_reports",
    metadata,
    Column("id", Id, primary_key=True),
    Column("study_id", ForeignKey("lmtune_studies.id"), nullable=False),
    Column("trial_id", ForeignKey("lmtune_trials.id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("step", Integer, nullable=False),
    Column("value", Float),  # the objective; null where it is not finite
    Column("special", String(9)),  # NaN, Infinity or -Infinity where it is not finite
    Column("body", Text, nullable=False),  # canonical JSON of the item
    Column("decision", String(8), nullable=False),
    Column("superseded", Boolean, nullable=False, default=False),
    UniqueConstraint("trial_id", "attempt", "step"),
    Index("lmtune_reports_by_step", "study_id", "step"),
    Index("lmtune_reports_by_study", "study_id", "id"),
)

checkpoints = Table(
    "lmtune_checkpoints",
    metadata,
    Column("trial_id", ForeignKey("lmtune_trials.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("sha256", ForeignKey("lmtune_blobs.sha256"), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("format", Integer, nullable=False),
    Column("code_hash", String(64), nullable=False),
    Column("last_report_step", Integer, nullable=False),
    Column("bad", Boolean, nullable=False, default=False),
    Column("created_at", Float, nullable=False),
    Index("lmtune_checkpoints_by_blob", "sha256"),
)

blobs = Table(
    "lmtune_blobs",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),  # data or checkpoint
    Column("name", String(255), nullable=False, default=""),
    Column("bytes", BigInteger, nullable=False),
    Column("state", String(8), nullable=False, default="live"),  # live or dying
    Column("created_at", Float, nullable=False),
)

workers = Table(
    "lmtune_workers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("host", String(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("device", String(200), nullable=False),
    Column("code_hash", String(64), nullable=False),
    Column("protocol", Integer, nullable=False),
    Column("claim_seq", Integer, nullable=False, default=0),
    Column("claim_open", Boolean, nullable=False, default=False),  # that claim has no answer yet
    Column("resources", JSON(none_as_null=True)),  # devices, memory, precisions; as it said last
    Column("registered_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
    Column("seen_t", Float, nullable=False),
    Column("gone", Boolean, nullable=False, default=False),
    Column("draining", Boolean, nullable=False, default=False),  # it gets no new trial
)

tokens = Table(
    "lmtune_tokens",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),  # token, login (once) or session
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
)

events = Table(
    "lmtune_events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Float, nullable=False),
    Column("study_id", ForeignKey("lmtune_studies.id"), nullable=False),
    Column("trial", Integer),  # its number; null for the study's own events
    Column("kind", String(32), nullable=False),
    Column("detail", JSON, nullable=False),
    Index("lmtune_events_by_study", "study_id", "id"),
)

clock = Table(
    "lmtune_clock",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("t", Float, nullable=False),
    Column("wall", Float, nullable=False),
)

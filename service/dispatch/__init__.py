"""The use cases: each is one transaction (new trials: two) and reads as a list of steps.

studies.py   open, pause, resume, stop, archive; how a study ends
claim.py     a worker asks for a trial
promote.py   paused trials that have come into the best of their rung
suggest.py   new trials: the sampler is asked between two transactions
report.py    heartbeat, report, checkpoint, resume, log: the writes of an attempt
settle.py    how an attempt's end becomes the trial's state, and the one function that moves it
enqueue.py   a configuration or a cancellation by a person
sweep.py     the lease clock; trials that nobody can take any more; blobs nobody points at
reading.py   what people see
"""

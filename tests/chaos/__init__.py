"""The storm: faults injected for real while simulated workers train, and what must hold after.

storm.py      the supervisor: starts everything, injects, ends all faults, waits for quiet, checks
faults.py     the table of faults, F1 to F25, and how often each comes
breaking.py   how each is injected, one function each
processes.py  the server and the workers as processes that are killed, stopped and started again
databases.py  a SQLite file, or a PostgreSQL server that keeps what it has acknowledged
people.py     what people do meanwhile: open studies, enqueue, cancel, pause, resume, stop
proxy.py      the network between workers and server, that delays, drops, duplicates and cuts
net.py        HTTP/1.1 over asyncio streams, as little as the storm needs
server.py     the real server, with crash points and a wall clock that can jump
workers.py    a process of simulated workers, which speak the real protocol over real sockets
simulated.py  one attempt of a simulated worker
model.py      what is trained: a pure function of recipe and step
history.py    every call as it was seen by who made it
rows.py       what the database holds in the end
checker.py    history and rows -> violations; pure
effects.py    I2, I5, I6, I8: what was acknowledged is there, once, and right
order.py      I1, I3, I4, I7, I9, I10: what follows what

    python -m tests.chaos.storm --seed 7 --trials 100 --faults 60 --db sqlite
"""

"""Every read and write of the promise tables; the only SQL of the project.

Each write is one statement, hence one short transaction. Time is the database's: no timestamp is ever sent, only
durations. A statement that writes for an attempt names the claim (fence, node and session) and changes nothing if the
claim is gone.
"""

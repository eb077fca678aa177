#!/usr/bin/env python3
"""How far it goes: what each part has to carry for so many erasures, and which gives way first.

    deploy/how-far.py                                   the table of deploy/scaling.md
    deploy/how-far.py --a-day 5e8 --keys 2 --emails 3   one case of yours

What one part can carry was measured on two cores (see deploy/scaling.md); put figures of your own in CAPACITY.
"""

import argparse
from dataclasses import dataclass

# What was measured, per unit of each part.
CAPACITY = {
    # Calls a minute that one API key may make: the highest plan that we know of.
    "api": 1_000,
    # Requests a second through one core of a worker with its journal: 43 microseconds each.
    "worker": 23_000,
    # Requests a second through one set of quorum queues on two cores of a broker, in and out.
    "broker": 38_000,
    # What a journal's database is still easy to look after at, in GB.
    "journal": 1_000,
}
EMAILS_A_CALL = 1_000
# Bytes that an answered request of one email takes in PostgreSQL, with its indexes.
BYTES = 261
RETENTION_S = 72 * 3600


@dataclass(frozen=True)
class Case:
    """So many erasures a day, in requests of so many emails, spread over groups of one key each."""

    name: str
    a_day: float
    groups: int
    workers: int
    emails: float = 1.0

    def loads(self):
        """How much of each part's capacity is used, for the busiest of its units."""
        requests_s = self.a_day / self.emails / 86_400 / self.groups
        return {
            "api": self.a_day / EMAILS_A_CALL / 1_440 / self.groups / CAPACITY["api"],
            "worker": requests_s * self.groups / self.workers / CAPACITY["worker"],
            "broker": requests_s / CAPACITY["broker"],
            "journal": requests_s * RETENTION_S * BYTES / 1e9 / CAPACITY["journal"],
        }

    def row(self):
        loads = self.loads()
        first = max(loads, key=loads.get)
        shares = " | ".join(f"{round(share * 100):,} %" for share in loads.values())
        return f"| {self.name} | {self.groups} | {self.workers} | {shares} | {first} |"


MILLION_A_MINUTE = EMAILS_A_CALL * CAPACITY["api"] * 1_440
CASES = [
    Case("a million a day", 1e6, 1, 1),
    Case("a hundred million a day", 1e8, 1, 1),
    Case("a billion a day", 1e9, 1, 1),
    Case("a billion a day, two workers", 1e9, 1, 2),
    Case("a billion a day, ten emails a request", 1e9, 1, 1, 10),
    Case("one key in full", MILLION_A_MINUTE, 1, 1),
    Case("ten keys in full, one journal each", 10 * MILLION_A_MINUTE, 10, 10),
    Case("a hundred keys in full, one journal each", 100 * MILLION_A_MINUTE, 100, 100),
    Case("a hundred keys in full, ten emails a request", 100 * MILLION_A_MINUTE, 100, 100, 10),
]
HEAD = (
    "| erasures | groups (keys) | workers | calls a minute | a worker's core | a broker's queues | a journal of 1 TB | fullest |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--a-day", type=float, help="emails to erase a day")
    options.add_argument("--keys", type=int, default=1, help="API keys, each with its own queues and journal")
    options.add_argument("--workers", type=int, help="workers in all; one for each key unless given")
    options.add_argument("--emails", type=float, default=1.0, help="emails in a request, on average")
    given = options.parse_args()
    cases = CASES
    if given.a_day:
        cases = [Case("yours", given.a_day, given.keys, given.workers or given.keys, given.emails)]
    print(HEAD)
    for case in cases:
        print(case.row())


if __name__ == "__main__":
    main()

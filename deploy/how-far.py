#!/usr/bin/env python3
"""How far it goes: what each part has to carry for so many erasures, and which gives way first; how many workers a
rate can use.

    deploy/how-far.py                                   the tables of deploy/scaling.md
    deploy/how-far.py --a-day 5e8 --keys 2 --emails 3   one case of yours
    deploy/how-far.py --rate 1000 --in-flight 8         workers for a rate of yours

What one part can carry was measured on two cores (see deploy/scaling.md); put figures of your own in CAPACITY.
"""

import argparse
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

# What was measured, per unit of each part.
CAPACITY = {
    # Calls a minute that one API key may make: the highest plan that we know of.
    "api": 1_000,
    # Requests a second through one core of a worker with a journal of a million: 32 microseconds each.
    "worker": 31_000,
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


@dataclass(frozen=True)
class Group:
    """The workers of one key: its calls a minute, how long each takes, and how many of them a worker has at a time."""

    rate: int
    # What `migma-eraser check` takes a call to last, too.
    seconds: Fraction = Fraction(1)
    in_flight: int = 8
    emails: Fraction = Fraction(1)

    def usable(self):
        """How many workers it takes to make so many calls: one more would find no call to make."""
        return max(1, ceil(self.rate * self.seconds / 60 / self.in_flight))

    def most(self):
        """With one to spare, for the hour in which one is lost: maxReplicaCount."""
        return self.usable() + 1

    def backlog(self):
        """The requests that one worker answers in so many minutes at its share of the rate, in full calls: value."""
        return floor(MINUTES * self.rate / Fraction(self.usable()) * EMAILS_A_CALL / self.emails)

    def row(self):
        reckoned = f"{self.usable():,} | {self.most():,} | {self.backlog():,}"
        return f"| {self.rate:,} | {float(self.seconds):g} s | {self.in_flight:,} | {reckoned} |"


# How long a worker's share of the backlog may last before another one is worth its start.
MINUTES = 5
GROUPS = [
    Group(100),
    Group(1_000),
    Group(1_000, seconds=Fraction(5)),
    Group(1_000, seconds=Fraction(5), in_flight=32),
    Group(1_000, seconds=Fraction(1, 4)),
]
GROUPS_HEAD = (
    "| calls a minute | a call takes | calls at a time | workers that the rate can use | `maxReplicaCount`: one to spare | `value`: requests that wait |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--a-day", type=float, help="emails to erase a day")
    options.add_argument("--keys", type=int, default=1, help="API keys, each with its own queues and journal")
    options.add_argument("--workers", type=int, help="workers in all; one for each key unless given")
    options.add_argument("--emails", type=Fraction, default=Fraction(1), help="emails in a request, on average")
    options.add_argument("--rate", type=int, help="calls a minute of one key (rate_limit.requests_per_minute)")
    options.add_argument("--seconds", type=Fraction, default=Group.seconds, help="a call takes so long; 1 unless given")
    options.add_argument("--in-flight", type=int, default=Group.in_flight, help="calls at a time (migma.max_in_flight)")
    given = options.parse_args()
    if given.rate:
        groups = [Group(given.rate, given.seconds, given.in_flight, given.emails)]
    else:
        groups = [] if given.a_day else GROUPS
    if given.a_day:
        cases = [Case("yours", given.a_day, given.keys, given.workers or given.keys, float(given.emails))]
    else:
        cases = [] if given.rate else CASES
    tables = [(HEAD, cases), (GROUPS_HEAD, groups)]
    print("\n\n".join("\n".join([head, *(entry.row() for entry in entries)]) for head, entries in tables if entries))


if __name__ == "__main__":
    main()

"""Everything that can be done to keys and policy: one function per act, used by the admin, the API and the commands.

Each act is one transaction: the rows, the event that tells of it, and for policy the new version, or none of them.
Refusals are `KeyRefused` and `PolicyRefused`, both Django's ValidationError, with words for people.
"""

"""Reads the list of subjects with admin rights, which an operator wrote."""

import json
import re

from tasklogs_server.domain.names import owner_violations

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
# Signs that a comma belongs to a subject: the `=` of a distinguished name (CN=a,O=x), quotes and
# backslashes that are meant to protect the comma, or a space inside a name (Doe, John R).
_NOT_IN_A_PLAIN_LIST = re.compile(r'[="\'\\\s]')


def parse_admin_subjects(text: str) -> frozenset[str]:
    """Return the subjects in `text`: a JSON list of strings, or plain subjects between commas.

    Raises ValueError if it is unclear which subjects are meant: a part of a subject must never
    become an admin. Also for a subject that no caller can have.
    """
    text = text.strip()
    subjects = _json_list(text) if text.startswith("[") else _plain_list(text)
    for subject in subjects:
        for violation in owner_violations(subject):
            raise ValueError(f"{subject!a} cannot be a subject: {violation.description}")
    return frozenset(subjects)


def _json_list(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise ValueError('not a JSON list of strings, such as ["alice", "CN=bob,O=example"]')
    return found


def _plain_list(text: str) -> list[str]:
    if "," not in text and not text.startswith(('"', "'")):
        return [text] if text else []
    subjects = [one.strip() for one in text.split(",") if one.strip()]
    schemes = {found and found[0] for found in map(_SCHEME.match, subjects)}
    if any(map(_NOT_IN_A_PLAIN_LIST.search, subjects)) or len(schemes) > 1:
        raise ValueError(
            "unclear where a subject ends, because a subject can contain commas;"
            ' use a JSON list, such as ["alice", "CN=bob,O=example"]'
        )
    return subjects

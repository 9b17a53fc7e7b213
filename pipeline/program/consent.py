"""Consent of the user that programs are opened which may do more than compute."""

_given: list[bool] = []


def trust_programs() -> None:
    """From here on this process opens any program, as `teacher.trust` asks."""
    _given.append(True)


def programs_trusted() -> bool:
    """Tells whether the user has agreed."""
    return bool(_given)

# SPDX-License-Identifier: MIT
"""What this kernel, this user and this container can do, by trial."""
import errno

from ._library import Error, Handle, answer_of, check, ffi, lib


class Probe(Handle):
    """The answers of uffdwp_probe_run(), which makes the trials: some milliseconds. No runtime is needed."""

    _noun = "probe"

    def __init__(self):
        out = ffi.new("struct uffdwp_probe **")
        check(lib.uffdwp_probe_run(out))
        super().__init__(out[0], lib.uffdwp_probe_free)

    def system(self):
        return answer_of("uffdwp_probe_system", lib.uffdwp_probe_system, self._pointer)

    def access(self, access):
        """0, or a negative errno: whether a method to open a userfaultfd works."""
        result = ffi.new("int32_t *")
        check(lib.uffdwp_probe_access(self._pointer, access, result))
        return result[0]

    def memory(self, memory):
        return answer_of("uffdwp_probe_memory", lib.uffdwp_probe_memory, self._pointer, memory)

    def trial(self, memory, trial):
        return answer_of("uffdwp_probe_trial", lib.uffdwp_probe_trial, self._pointer, memory, trial)

    def rung(self, memory, mechanism):
        return answer_of("uffdwp_probe_rung", lib.uffdwp_probe_rung, self._pointer, memory, mechanism)

    def arming(self, memory, arming):
        return answer_of("uffdwp_probe_arming", lib.uffdwp_probe_arming, self._pointer, memory, arming)

    def child(self):
        return answer_of("uffdwp_probe_arming", lib.uffdwp_probe_child, self._pointer)

    free = Handle.close


def _all(ask):
    """Answers by index, until there are no more."""
    answers = []
    while True:
        try:
            answers.append(ask(len(answers)))
        except Error as error:
            if error.errno != errno.ERANGE:
                raise
            return answers


def _names(enumeration):
    """Enumerators by their numbers, in lower case without what all of them begin with."""
    prefix = "UFFDWP_" + enumeration.upper() + "_"
    return {number: name[len(prefix):].lower()
            for number, name in ffi.typeof("enum uffdwp_" + enumeration).elements.items()}


def doctor():
    """All answers of a probe, by the names of things: doctor()["memory"]["shmem"]["mechanism"] is "marker", say."""
    mechanisms, armings = _names("mechanism"), _names("arming")
    facts = {}
    with Probe() as probe:
        facts["system"] = vars(probe.system())
        accesses = _names("access")
        facts["access"] = {accesses.get(at, str(at)): result for at, result in enumerate(_all(probe.access))}
        facts["memory"] = {}
        for number, memory in enumerate(_all(probe.memory)):
            one = vars(memory)
            one["mechanism"] = mechanisms[memory.mechanism]
            one["rungs"] = {name: vars(probe.rung(number, at)) for at, name in mechanisms.items() if 0 < at and _is(
                probe.rung, number, at)}
            one["armings"] = {name: vars(probe.arming(number, at)) for at, name in armings.items() if 0 < at and _is(
                probe.arming, number, at)}
            facts["memory"][_names("memory").get(number, str(number))] = one
        facts["child"] = vars(probe.child())
    return facts


def _is(ask, *arguments):
    try:
        ask(*arguments)
        return True
    except Error as error:
        if error.errno != errno.ERANGE:
            raise
        return False

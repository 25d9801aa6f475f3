"""Every protection of a job: where it is, what stands there when it is switched off, and the test that fails then."""

from __future__ import annotations

from typing import NamedTuple, Sequence, Tuple


class Protection(NamedTuple):
    """Something that keeps a promise.

    Attributes:
        file: where it is; `off` pairs what stands there with what stands there when it is switched off.
        test: what fails then.
    """

    name: str
    file: str
    off: Sequence[Tuple[str, str]]
    test: str


_LEDGER, _RECONCILER = "tests/test_ledger.py", "tests/test_reconciler.py"
_RECOVERY, _FLEET = "tests/integration/test_recovery.py", "tests/integration/test_fleet.py"
_NEIGHBOURS, _STORAGE = "tests/integration/test_neighbours.py", "tests/test_storage.py"

PROTECTIONS = [
    Protection(
        "a job is recorded before it is sent",
        "worker/client.py",
        [
            ("            known = self._ledger.record(job_id, message)\n", '            known = "new"\n'),
            (
                '        if "webhook" in message.kwargs',
                '        self._ledger.record(job_id, message)\n        if "webhook" in message.kwargs',
            ),
        ],
        f"{_RECOVERY}::test_a_client_that_dies_between_record_and_message_has_submitted",
    ),
    Protection(
        "what could not be sent is withdrawn",
        "worker/client.py",
        [("                self._ledger.withdraw(job_id)\n", "                pass\n")],
        "tests/test_client.py::test_a_job_that_could_not_be_sent_may_be_another_under_the_same_id",
    ),
    Protection(
        "the same id is the same job, or an error (client)",
        "worker/client.py",
        [('if known == "other":', 'if known == "never":')],
        "tests/test_client.py::test_a_job_of_ones_own_id_is_sent_once",
    ),
    Protection(
        "the same id is the same job, or an error (ledger)",
        "worker/lua/record.lua",
        [("return known == digest and 'same' or 'other'", "return 'same'")],
        f"{_LEDGER}::test_the_same_id_is_the_same_job_or_refused",
    ),
    Protection(
        "a foreign message of another payload is not taken for the job",
        "worker/lua/begin.lua",
        [("get('digest') ~= digest", "false")],
        f"{_LEDGER}::test_a_foreign_message_of_another_payload_is_no_message_of_the_job",
    ),
    Protection(
        "attempts are counted before they are made",
        "worker/lua/begin.lua",
        [("redis.call('HINCRBY', job, 'attempts', 1)", "get('attempts') + 1")],
        f"{_FLEET}::test_a_job_that_kills_every_slot_is_not_tried_for_ever",
    ),
    Protection(
        "past the last attempt a job is dead (begun once more)",
        "worker/lua/begin.lua",
        [("if tonumber(get('attempts')) >= most then", "if false then")],
        f"{_LEDGER}::test_attempts_are_counted_and_then_the_job_is_dead",
    ),
    Protection(
        "past the last attempt a job is dead (failed once more)",
        "worker/lua/later.lua",
        [("if tonumber(get('attempts')) >= tonumber(ARGV[7]) then", "if false then")],
        f"{_RECOVERY}::test_a_job_that_eats_all_memory_ends_as_a_dead_letter_with_its_history_and_the_worker_goes_on",
    ),
    Protection(
        "one attempt at a time",
        "worker/lua/begin.lua",
        [("if held and tonumber(held) > now() then", "if false then")],
        f"{_LEDGER}::test_one_attempt_at_a_time",
    ),
    Protection(
        "a job that has ended is not begun again",
        "worker/lua/begin.lua",
        [("elseif ENDED[state] or state == 'dead' then", "elseif false then")],
        f"{_RECOVERY}::test_a_message_that_comes_twice_makes_one_attempt",
    ),
    Protection(
        "the first outcome stands",
        "worker/lua/finish.lua",
        [("ENDED[state] or ", "")],
        f"{_LEDGER}::test_the_first_outcome_stands",
    ),
    Protection(
        "a dead letter and its result are written in one step",
        "worker/lua/later.lua",
        [("  return 'dead'\n", "  enter('dead', 'dead', now(), ARGV[8])\n  return 'dead'\n")],
        f"{_LEDGER}::test_who_dies_before_the_dead_letter_is_written_leaves_it_to_another",
    ),
    Protection(
        "and once",
        "worker/lua/finish.lua",
        [(" or state == 'dead') then", ") then")],
        f"{_LEDGER}::test_attempts_are_counted_and_then_the_job_is_dead",
    ),
    Protection(
        "the outcome is written before the acknowledgement",
        "celeryconfig.py",
        [("task_acks_late = True", "task_acks_late = False")],
        f"{_RECOVERY}::test_the_outcome_is_stored_before_the_message_is_acknowledged",
    ),
    Protection(
        "attempts in work renew their leases",
        "worker/watch.py",
        [("                    renew()\n", "                    pass\n")],
        f"{_RECOVERY}::test_a_job_longer_than_its_lease_is_not_taken_for_lost",
    ),
    Protection(
        "leases that are over are found, and their jobs sent again",
        "worker/reconciler.py",
        [('resent += [self._resend(job_id, "running") for job_id in running]', "resent += []")],
        f"{_RECONCILER}::test_after_an_outage_attempts_get_the_time_to_renew_their_leases",
    ),
    Protection(
        "after an outage attempts get the time to renew their leases",
        "worker/reconciler.py",
        [("self._trusted_from = time.monotonic() + LEASE_S / 2", "self._trusted_from = 0.0")],
        f"{_RECONCILER}::test_after_an_outage_attempts_get_the_time_to_renew_their_leases",
    ),
    Protection(
        "what left the queue and was never begun is sent again",
        "worker/reconciler.py",
        [('self._resend(job_id, "waiting")', "False")],
        f"{_RECOVERY}::test_a_message_that_was_popped_and_never_noted_is_sent_again",
    ),
    Protection(
        "at the head of the queue",
        "worker/transport.py",
        [('if FIRST not in message["headers"]:', "if True:")],
        "tests/test_transport.py::test_what_is_sent_again_does_not_wait_again",
    ),
    Protection(
        "where what was given back goes, too",
        "worker/transport.py",
        [("pipe, leftmost=False)", "pipe, leftmost=True)")],
        "tests/test_transport.py::test_what_is_given_back_does_not_wait_again",
    ),
    Protection(
        "what a consumer holds is not",
        "worker/reconciler.py",
        [("held.update(map(_job_id, unacked))", "pass")],
        f"{_RECONCILER}::test_a_message_that_vanished_is_sent_again_and_one_that_is_held_is_not",
    ),
    Protection(
        "what waits on the queue is not",
        "worker/reconciler.py",
        [("held.update(map(_job_id, waiting))", "pass")],
        f"{_RECONCILER}::test_a_message_that_vanished_is_sent_again_and_one_that_is_held_is_not",
    ),
    Protection(
        "nobody is suspected behind a head that is unknown",
        "worker/lua/suspects.lua",
        [("math.min(before, tonumber(sent)) or 0", "math.min(before, tonumber(sent)) or before")],
        f"{_LEDGER}::test_who_left_the_queue_and_did_not_begin_is_suspect",
    ),
    Protection(
        "one reconciler acts at a time (lock)",
        "worker/lua/suspects.lua",
        [("    return false\n", "")],
        f"{_LEDGER}::test_what_is_lost_or_due_is_claimed_once",
    ),
    Protection(
        "one that has lost the lock does nothing (fence)",
        "worker/lua/claim.lua",
        [("if redis.call('GET', prefix .. ':reconciler') ~= token then", "if false then")],
        f"{_RECONCILER}::test_one_that_lost_its_lock_while_it_was_frozen_does_nothing",
    ),
    Protection(
        "a job is claimed once",
        "worker/lua/claim.lua",
        [("if state ~= seen then", "if false then")],
        f"{_LEDGER}::test_what_is_lost_or_due_is_claimed_once",
    ),
    Protection(
        "of those that were lost twice one is tried at a time",
        "worker/lua/claim.lua",
        [("if tonumber(get('attempts')) >= 2 then", "if false then")],
        f"{_LEDGER}::test_of_those_that_were_lost_twice_one_is_tried_at_a_time",
    ),
    Protection(
        "the list of dead letters forgets those that have expired",
        "worker/lua/suspects.lua",
        [("  redis.call('ZREM', prefix .. ':dead', letter)\n", "")],
        f"{_LEDGER}::test_dead_letters_are_kept_as_long_as_was_said_and_then_not_listed_either",
    ),
    Protection(
        "no key of the ledger stays for ever",
        "worker/lua/common.lua",
        [("  redis.call('EXPIRE', job, keep)\n", "")],
        _LEDGER,
    ),
    Protection(
        "a record expires with its result",
        "worker/lua/finish.lua",
        [("  redis.call('EXPIRE', job, ARGV[6])\n", "")],
        f"{_LEDGER}::test_a_job_that_goes_well",
    ),
    Protection(
        "a finished result is stored as soon as Redis is back",
        "celeryconfig.py",
        [("result_backend_always_retry = True", "result_backend_always_retry = False")],
        f"{_RECOVERY}::test_a_finished_result_outlasts_an_outage_and_the_job_is_not_done_again",
    ),
    Protection(
        "steps of an attempt outlast an outage",
        "worker/attempt.py",
        [("            time.sleep(_AGAIN_S)\n", "            raise\n")],
        "tests/test_attempt.py::test_a_redis_that_is_away_is_waited_for",
    ),
    Protection(
        "and no soft time limit breaks them off",
        "worker/limits.py",
        [("    if _row is not None and _row.working_since:\n", "    if True:\n")],
        "tests/test_limits.py::test_the_soft_limit_ends_work_and_nothing_else",
    ),
    Protection(
        "nor what is being cleared up",
        "worker/limits.py",
        [("        _row.working_since = 0.0  # what is raised must be able to leave in peace\n", "")],
        "tests/test_limits.py::test_it_does_so_once_so_that_what_was_begun_can_be_cleared_up",
    ),
    Protection(
        "a slot is not killed while it keeps a result until Redis is back",
        "worker/limits.py",
        [("since else _AGAIN_S", "since else 0.0")],
        "tests/test_limits.py::test_a_slot_that_waits_for_redis_reaches_no_limit",
    ),
    Protection(
        "a job beyond its soft time limit is broken off",
        "worker/limits.py",
        [("        raise SoftTimeLimitExceeded\n", "        return\n")],
        f"{_RECOVERY}::test_a_job_beyond_its_time_limit_is_broken_off_and_tried_again",
    ),
    Protection(
        "pauses between attempts double",
        "worker/attempt.py",
        [(" * 2 ** (attempts - 1)", "")],
        "tests/test_attempt.py::test_pauses_double_up_to_a_limit_and_differ",
    ),
    Protection(
        "up to a limit",
        "worker/attempt.py",
        [("min(settings().retry_max_s, pause_s)", "pause_s")],
        "tests/test_attempt.py::test_pauses_double_up_to_a_limit_and_differ",
    ),
    Protection(
        "and differ",
        "worker/attempt.py",
        [("random.uniform(0.5, 1.0)", "1.0")],
        "tests/test_attempt.py::test_pauses_double_up_to_a_limit_and_differ",
    ),
    Protection(
        "a missing file is waited for as long as POSE_FILE_GRACE_S says, however many attempts that is",
        "worker/attempt.py",
        [("counts = not isinstance(exc, ImageNotReady)", "counts = True")],
        "tests/integration/test_brokers.py::test_what_may_pass_is_tried_again[valkey]",
    ),
    Protection(
        "less and less often",
        "worker/attempt.py",
        [("max(settings().retry_base_s, self.age_s)", "settings().retry_base_s")],
        "tests/integration/test_recovery.py::test_a_file_that_does_not_come_is_looked_for_less_and_less_often",
    ),
    Protection(
        "an overlay is written whole or not at all",
        "worker/storage.py",
        [
            ('part = target.with_name(f".{target.name}.{secrets.token_hex(6)}{_PART}")', "part = target"),
            ("                part.unlink(missing_ok=True)\n", "                pass\n"),
        ],
        f"{_STORAGE}::test_a_half_written_file_is_never_seen",
    ),
    Protection(
        "what is being written is not swept",
        "worker/storage.py",
        [("_ABANDONED_S if path.name.endswith(_PART) else 0.0", "0.0")],
        f"{_STORAGE}::test_files_are_swept_when_they_expire",
    ),
    Protection(
        "overlays that are files expire",
        "worker/sweeper.py",
        [("                self._store.sweep()\n", "                pass\n")],
        f"{_STORAGE}::test_workers_sweep_by_themselves",
    ),
    Protection(
        "a lost slot's job goes back to the queue",
        "worker/request.py",
        [("if not isinstance(exc, (WorkerLostError, SystemExit, KeyboardInterrupt)):", "if True:")],
        f"{_FLEET}::test_a_slot_that_dies_is_replaced_and_its_job_redone",
    ),
    Protection(
        "so does a job whose slot was killed at the hard time limit",
        "worker/request.py",
        [("if isinstance(exc, TimeLimitExceeded):", "if False:")],
        f"{_RECOVERY}::test_a_job_that_hears_no_time_limit_loses_its_slot_and_is_done_by_another",
    ),
    Protection(
        "a frozen slot is killed",
        "worker/station.py",
        [("                    os.kill(row.pid, signal.SIGKILL)\n", "                    pass\n")],
        f"{_RECOVERY}::test_frozen_slots_are_killed_and_others_do_their_jobs",
    ),
    Protection(
        "memory that is used up ends no worker",
        "worker/tasks.py",
        [("    except MemoryError as exc:", "    except ZeroDivisionError as exc:")],
        f"{_RECOVERY}::test_a_job_that_eats_all_memory_ends_as_a_dead_letter_with_its_history_and_the_worker_goes_on",
    ),
    Protection(
        "a dead or hanging net process is replaced",
        "worker/device/host.py",
        [("            self._bury(trouble)\n", "            pass\n")],
        f"{_FLEET}::test_a_net_process_that_dies_costs_one_attempt",
    ),
    Protection(
        "children die with their worker",
        "worker/processes.py",
        [("    if _libc is not None:\n", "    if False:\n")],
        f"{_FLEET}::test_a_killed_worker_leaves_no_process_and_its_job_is_done_by_the_next",
    ),
    Protection(
        "a signal to the whole group drains the worker all the same",
        "worker/watch.py",
        [("        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)\n", "")],
        f"{_FLEET}::test_a_drain_under_load_loses_nothing_and_does_nothing_twice[_kill_group]",
    ),
    Protection(
        "when the grace is over jobs go back",
        "worker/app.py",
        [("        os.kill(os.getpid(), signal.SIGQUIT)\n", "        pass\n")],
        f"{_FLEET}::test_what_is_not_done_within_the_grace_goes_back_to_the_queue",
    ),
    Protection(
        "and that costs them no attempt",
        "worker/request.py",
        [('self._release("its worker stopped", counts=False)', 'self._release("its worker stopped", counts=True)')],
        f"{_FLEET}::test_what_is_not_done_within_the_grace_goes_back_to_the_queue",
    ),
    Protection(
        "errors survive Celery's JSON",
        "worker/errors.py",
        [("        super().__init__(message)\n", "        super().__init__()\n")],
        "tests/test_errors.py",
    ),
    Protection(
        "deployments on one server never meet",
        "worker/keys.py",
        [("    if prefix == DEFAULT_PREFIX:\n", "    if True:\n")],
        _NEIGHBOURS,
    ),
]

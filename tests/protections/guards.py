"""Every protection against what comes in: where it is, how it is switched off, and the test that fails then."""

from __future__ import annotations

from tests.protections.listed import Protection

_FILES, _IMAGES = "tests/test_hostile_images.py", "tests/test_images.py"
_MESSAGES, _STRANGERS = "tests/integration/test_hostile_messages.py", "tests/integration/test_signing.py"
_EACH_FILE = f"{_FILES}::test_every_file_is_decoded_or_refused_by_name[refused]"
_EACH_MESSAGE = f"{_MESSAGES}::test_each_ends_typed_or_is_kept_and_the_worker_goes_on"

GUARDS = [
    Protection(
        "images are read below the allowed roots only, wherever links lead",
        "worker/images.py",
        [
            (
                '    return any(real == root or real.startswith(root.rstrip("/") + "/") for root in roots)',
                "    return True",
            )
        ],
        f"{_IMAGES}::test_a_link_is_judged_by_where_it_leads",
    ),
    Protection(
        "a folder whose name begins like a root's is none",
        "worker/images.py",
        [('real.startswith(root.rstrip("/") + "/")', "real.startswith(root)")],
        f"{_IMAGES}::test_places_that_are_refused",
    ),
    Protection(
        "what is read is what was checked",
        "worker/images.py",
        [('    with open(f"/proc/self/fd/{place}", "rb")', '    with open(shown, "rb")')],
        f"{_FILES}::test_a_file_that_is_swapped_all_the_time_never_shows_what_is_outside",
    ),
    Protection(
        "what is checked is what was found",
        "worker/images.py",
        [('os.readlink(f"/proc/self/fd/{place}")', "os.path.realpath(local)")],
        f"{_FILES}::test_a_file_that_is_swapped_all_the_time_never_shows_what_is_outside",
    ),
    Protection(
        "what is outside is not told of",
        "worker/images.py",
        [("    if not _allowed(os.path.realpath(local), policy):", "    if False:")],
        f"{_FILES}::test_no_refusal_tells_what_is_in_a_file_outside",
    ),
    Protection(
        "images are regular files",
        "worker/images.py",
        [("    if not stat.S_ISREG(status.st_mode):", "    if False:")],
        f"{_IMAGES}::test_places_that_are_refused",
    ),
    Protection(
        "of so many bytes",
        "worker/images.py",
        [
            ("    if status.st_size > policy.max_bytes:", "    if False:"),
            ("    if len(data) > policy.max_bytes:", "    if False:"),
        ],
        f"{_IMAGES}::test_a_file_of_more_bytes_than_the_limit",
    ),
    Protection(
        "also when they have grown since",
        "worker/images.py",
        [("    if len(data) > policy.max_bytes:", "    if False:")],
        f"{_IMAGES}::test_a_file_of_more_bytes_than_it_says",
    ),
    Protection(
        "of so many pixels",
        "worker/images.py",
        [("    if width * height > policy.max_pixels:", "    if False:")],
        f"{_IMAGES}::test_bad_files_are_refused_in_one_sentence",
    ),
    Protection(
        "of such a shape",
        "worker/images.py",
        [("    if max(size) > policy.max_aspect * min(size):", "    if False:")],
        f"{_IMAGES}::test_bad_files_are_refused_in_one_sentence",
    ),
    Protection(
        "of so many scans",
        "worker/structure.py",
        [("_MAX_SCANS = 100\n", "_MAX_SCANS = 10**9\n")],
        _EACH_FILE,
    ),
    Protection(
        "with little between its parts",
        "worker/structure.py",
        [("_MAX_GAP = 65_536\n", "_MAX_GAP = 10**9\n")],
        _EACH_FILE,
    ),
    Protection(
        "with tiles of the image's own size",
        "worker/images.py",
        [("    width, height = tile_size(picture)\n", "    width, height = 1, 1\n")],
        "tests/test_hostile_images.py",
    ),
    Protection(
        "of a format on the list",
        "worker/images.py",
        [("formats=FORMATS)", "formats=None)")],
        _EACH_FILE,
    ),
    Protection(
        "a name that breaks lines breaks no sentence",
        "worker/images.py",
        [('"".join(char if char.isprintable() else ascii(char)[1:-1] for char in path)', "path")],
        _EACH_FILE,
    ),
    Protection(
        "whatever a decoder raises is an error of the image",
        "worker/images.py",
        [("    except Exception as exc:  # decoders", "    except ZeroDivisionError as exc:  # decoders")],
        f"{_IMAGES}::test_bad_files_are_refused_in_one_sentence",
    ),
    Protection(
        "a time limit is none",
        "worker/images.py",
        [("    except (PoseError, SoftTimeLimitExceeded):", "    except PoseError:")],
        f"{_IMAGES}::test_a_time_limit_is_not_taken_for_a_corrupt_file",
    ),
    Protection(
        "whatever a net says, building it ends typed",
        "worker/engine/netdef.py",
        [
            (
                "except (KeyError, ValueError, TypeError, OverflowError, MemoryError) as exc",
                "except ZeroDivisionError as exc",
            )
        ],
        "tests/engine/test_netdef_fuzz.py",
    ),
    Protection(
        "weights are those of the checksum",
        "worker/engine/manifest.py",
        [("            if found != expected:", "            if False:")],
        "tests/engine/test_faults.py::test_a_damaged_file",
    ),
    Protection(
        "what is no message is not made one",
        "worker/transport.py",
        [("    if fault is None:", "    if True:")],
        _EACH_MESSAGE,
    ),
    Protection(
        "nor what is published to all workers",
        "worker/transport.py",
        [("            if fault is not None:", "            if False:")],
        f"{_MESSAGES}::test_what_is_published_to_all_workers_ends_none",
    ),
    Protection(
        "a delivery tag is nobody else's",
        "worker/transport.py",
        [('        payload["properties"]["delivery_tag"] = str(uuid.uuid4())\n', "")],
        "tests/test_transport.py::test_messages_of_one_tag_are_in_work_side_by_side",
    ),
    Protection(
        "a lost connection is closed, whatever is in work",
        "worker/transport.py",
        [("            self.do_restore = False\n", "            pass\n")],
        "tests/test_transport.py::test_a_connection_that_is_lost_while_a_message_is_in_work_can_be_closed",
    ),
    Protection(
        "each message is looked at before Celery does",
        "worker/consumer.py",
        [("                intake.check(message, content_type, settings().max_message_bytes)\n", "")],
        _EACH_MESSAGE,
    ),
    Protection(
        "and not unpacked",
        "worker/intake.py",
        [("        kombu.compression.register(None, _packed, kind)", "        pass")],
        f"{_MESSAGES}::test_whoever_waits_for_a_refused_message_is_told",
    ),
    Protection(
        "a message lifts no time limit",
        "worker/intake.py",
        [('*("timelimit", "shadow"', '*("shadow"')],
        f"{_MESSAGES}::test_a_message_cannot_lift_the_workers_time_limits",
    ),
    Protection(
        "a refused message ends no job of another",
        "worker/refused.py",
        [("job_id is not None and ledger().state(job_id) is None", "job_id is not None")],
        f"{_MESSAGES}::test_a_refused_message_does_not_end_the_job_whose_id_it_bears",
    ),
    Protection(
        "records count when they are signed",
        "worker/ledger.py",
        [("text if self._signer is None else", "text if True else")],
        "tests/test_signing.py::test_a_record_and_whom_to_tell_count_only_when_signed",
    ),
    Protection(
        "so does whom to tell",
        "worker/outbox.py",
        [("text if self._signer is None else", "text if True else")],
        "tests/test_signing.py::test_a_record_and_whom_to_tell_count_only_when_signed",
    ),
    Protection(
        "a result is that of its job",
        "worker/backend.py",
        [(' or task_id not in (None, meta.get("task_id"))', "")],
        f"{_STRANGERS}::test_a_result_that_a_stranger_has_written_is_not_believed",
    ),
    Protection(
        "what is signed is JSON",
        "worker/signing.py",
        [('if (fields["content_type"], fields["content_encoding"]) != (_WITHIN, "utf-8"):', "if False:")],
        f"{_STRANGERS}::test_another_key_or_a_changed_body_is_refused",
    ),
    Protection(
        "a Redis with TLS shows a certificate",
        "worker/servers.py",
        [('not in ("required", "CERT_REQUIRED")', 'not in ("required", "CERT_REQUIRED", "none", "optional")')],
        "tests/test_servers.py::test_a_url_that_will_not_do_is_told_at_once",
    ),
    Protection(
        "passwords are masked",
        "worker/settings.py",
        [
            (
                "        start = f\"{scheme}://{credentials.split(':', 1)[0]}:***\"",
                '        start = f"{scheme}://{credentials}"',
            )
        ],
        "tests/test_settings.py::test_passwords_are_masked_in_repr",
    ),
    Protection(
        "a vulnerable package fails the audit",
        "deploy/supply.py",
        [("    if bad:", "    if False:")],
        "tests/deploy/test_supply.py::test_an_audit_fails_for_what_it_finds_alone",
    ),
]

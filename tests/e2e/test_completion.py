"""Completion and the manual page: made of what the help of the commands says, and taken by the programs that they are for."""
import os
import pty
import re
import select
import subprocess
import time

import pytest

from gateway import BINARY, ROOT


def tell(*words):
    done = subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout


def names():
    return re.findall(r"^  ([a-z]+) ", tell("--help"), re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh"):
        (path / shell).write_text(tell("completion", shell))
    (path / "gateway.lua").write_text("")
    return path


def complete(folder, *words):
    """What bash offers for the last word."""
    script = f'source {folder}/bash; cd {folder}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tidegate; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "--norc", "-c", script, "bash", *words], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.split()


def test_bash_offers_commands_options_words_and_files(folder):
    assert complete(folder, "tidegate", "") == names()
    assert complete(folder, "tidegate", "fai") == ["failures"]
    assert complete(folder, "tidegate", "tail", "--st") == ["--status"]
    assert complete(folder, "tidegate", "upstream", "app", "dr") == ["drain"]
    assert complete(folder, "tidegate", "canary", "") == ["promote", "abort", "--control", "--help"]
    assert complete(folder, "tidegate", "completion", "z") == ["zsh"]
    assert complete(folder, "tidegate", "run", "gate") == ["gateway.lua"]
    assert complete(folder, "tidegate", "run", "--config", "gate") == ["gateway.lua"]
    assert complete(folder, "tidegate", "top", "--interval", "") == []
    for name in names():
        assert "--help" in complete(folder, "tidegate", name, "--h"), name


def test_every_option_of_the_help_is_offered(folder):
    for name in names():
        told = set(re.findall(r"(?<![\w-])--[a-z-]+", re.sub(r"\(see: .*?\)", "", tell(name, "--help"))))
        assert told <= set(complete(folder, "tidegate", name, "--")), name


def test_zsh_completes_at_its_prompt(folder):
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "dumb", "PS1": "> ", "HOME": str(folder)}
    shell = subprocess.Popen(["zsh", "-f", "-i", "+o", "promptcr"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=env,
                             start_new_session=True)
    os.close(theirs)
    out = b""

    def until(pattern):
        nonlocal out
        end = time.monotonic() + 20
        while not re.search(pattern, out):
            assert time.monotonic() < end, out
            if select.select([ours], [], [], 0.2)[0]:
                out += os.read(ours, 65536)
        out = b""
    try:
        os.write(ours, b"autoload -U compinit && compinit -D -u && source ./zsh && print rea''dy\n")
        until(rb"ready\r")
        os.write(ours, b"tidegate fai\t")
        until(rb"failures ")
        os.write(ours, b"--rou\t")
        until(rb"--route ")
        os.write(ours, b"\x15tidegate upstream app dr\t")
        until(rb"drain ")
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


def test_other_shells_are_unknown():
    for words in ((), ("fish",), ("bash", "zsh")):
        done = subprocess.run([BINARY, "completion", *words], capture_output=True, text=True, timeout=20)
        assert done.returncode == 2 and "expected bash or zsh" in done.stderr


def test_the_manual_page_is_clean_and_has_all_commands(tmp_path):
    page = tmp_path / "tidegate.1"
    page.write_text(tell("doc", "--man"))
    checked = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", str(page)], capture_output=True, text=True, timeout=20)
    assert checked.returncode == 0 and checked.stderr == "", checked.stderr
    text = subprocess.run(["groff", "-man", "-Tascii", "-P-c", str(page)], capture_output=True, text=True, timeout=20).stdout
    text = re.sub(r"-\n +", "-", re.sub(".\x08", "", text))  # without boldface
    for name in names():
        assert re.search(rf"^   {name}$", text, re.M), name
    for option in ("--upgrade-timeout S", "--max-latency 150%", "--user NAME[:GROUP]"):
        assert option in text


def test_they_are_installed(tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    command = ["make", "-s", "install", f"DESTDIR={tmp_path}", "PREFIX=/usr/local"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    share = tmp_path / "usr/local/share"
    assert (share / "man/man1/tidegate.1").read_text() == tell("doc", "--man")
    assert (share / "bash-completion/completions/tidegate").read_text() == tell("completion", "bash")
    assert (share / "zsh/site-functions/_tidegate").read_text() == tell("completion", "zsh")

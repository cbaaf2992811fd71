import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

import ipse
from ipse import catalogue, cli


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    output = capsys.readouterr()
    return caught.value.code, output.out, output.err


@pytest.fixture
def verb(tmp_path, monkeypatch):
    """Adds the verb ``try`` whose module holds the code given."""

    def add(code):
        (tmp_path / "try_verb.py").write_text("import typer\nimport ipse\n" + textwrap.dedent(code))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "try_verb", raising=False)
        monkeypatch.setitem(cli.VERBS, "try", cli.Verb("try_verb:app", "Try something."))

    return add


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"ipse {ipse.__version__}\n", "")


def test_help_lists_every_verb_without_importing_it(capsys, verb):
    verb("raise ImportError('not now')")
    code, out, _ = run(capsys, "--help")
    assert code == 0 and "try_verb" not in sys.modules
    for name, entry in cli.VERBS.items():
        assert name in out and entry.help.split()[0] in out


@pytest.mark.parametrize("name", sorted(cli.VERBS))
def test_every_verb_explains_itself(capsys, name):
    code, out, _ = run(capsys, name, "--help")
    assert code == 0 and f"ipse {name}" in out


def test_a_verb_can_be_a_function_or_an_app(capsys, verb):
    verb("def app(name: str, loud: bool = False):\n    'Greet.'\n    print(name.upper() if loud else name)")
    assert run(capsys, "try", "Ada", "--loud")[:2] == (0, "ADA\n")
    verb(
        """
        app = typer.Typer()
        @app.command()
        def one(): print(1)
        @app.command()
        def two(): print(2)
        """
    )
    assert run(capsys, "try", "two")[:2] == (0, "2\n")
    assert "one" in run(capsys, "try", "--help")[1]


def test_our_errors_are_one_line_with_status_2(capsys, verb):
    verb("def app(): ipse.read_image('no/such [red]file[/red].png')")
    code, out, err = run(capsys, "try")
    assert (code, out) == (2, "")
    assert err == "ipse: no/such [red]file[/red].png does not exist. Check the path.\n"


def test_errors_of_the_machine_are_one_line_with_status_1(capsys, verb):
    verb("def app(): raise OSError(28, 'No space left on device')")
    assert run(capsys, "try") == (1, "", "ipse: [Errno 28] No space left on device\n")


def test_our_own_mistakes_keep_their_traceback(verb):
    verb("def app(): {}['missing']")
    with pytest.raises(KeyError):
        cli.main(["try"])


def test_wrong_usage_has_status_2_and_a_suggestion(capsys):
    code, _, err = run(capsys, "systms")
    assert code == 2 and "systems" in err
    assert run(capsys, "systems", "--nonsense")[0] == 2
    assert run(capsys)[0] == 2


def test_control_c_has_status_130(capsys, verb):
    verb(f"import os\ndef app(): os.kill(os.getpid(), {int(signal.SIGINT)})")
    code, _, err = run(capsys, "try")
    assert code == 130 and "Traceback" not in err


def test_systems_lists_the_catalogue(capsys):
    code, out, _ = run(capsys, "systems", "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)] == [entry.name for entry in catalogue.systems()]
    assert run(capsys, "systems")[0] == 0
    assert "No system is in the room nowhere" in run(capsys, "systems", "--room", "nowhere")[1]


def test_the_command_is_installed():
    command = os.path.join(os.path.dirname(sys.executable), "ipse")
    assert subprocess.run([command, "--version"], capture_output=True, text=True).stdout == f"ipse {ipse.__version__}\n"

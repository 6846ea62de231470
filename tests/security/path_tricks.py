"""The tricks by which a path may lead where it must not: one a line, each with its name.

`{target}` is where it should lead, a file; `{up}` the way there from an allowed folder, `{bare}` the same without a
slash at its start, `{tail}` its last two names. `{root}` is an allowed folder with links in it, `{home}` and `{here}`
are the ways there from the home and the working folder.
"""

from __future__ import annotations

from dataclasses import dataclass

LONG = 260


@dataclass(frozen=True)
class Trick:
    """One of them: what it is called, and its pattern."""

    name: str
    pattern: str

    def text(self, places: dict[str, str]) -> str:
        """The path that is tried, with these places in it."""
        text = self.pattern
        for place, path in places.items():
            text = text.replace(f"{{{place}}}", path)
        return text


TRICKS = tuple(
    Trick(name, pattern)
    for name, pattern in (
        ("the file itself", "{target}"),
        ("dots out of an allowed folder", "{root}/{up}"),
        ("dots after a dot", "{root}/./{up}"),
        ("dots through a folder that is not there", "{root}/nowhere/../{up}"),
        ("dots through a file", "{root}/own.jsonl/../{up}"),
        ("dots after a doubled slash", "{root}//{up}"),
        ("dots and a slash at the end", "{root}/{up}/"),
        ("dots and a dot at the end", "{root}/{up}/."),
        ("down forty folders and up again", "{root}/" + "a/" * 40 + "../" * 40 + "{up}"),
        ("dots from the working folder", "{here}"),
        ("a dot, then dots from the working folder", "./{here}"),
        ("more dots than there are folders", "../" * 40 + "{bare}"),
        ("dots with a semicolon, as some servers cut it off", "{root}/..;/{up}"),
        ("four dots, two of which a filter takes away", "....//....//....//{bare}"),
        ("dots with a dot-slash inside, which a filter takes away", "..././..././..././{bare}"),
        ("three dots", "{root}/.../{up}"),
        ("dots with a space behind", "{root}/.. /{up}"),
        ("dots with a space before", "{root}/ ../{up}"),
        ("dots at the end of a name", "{root}/own.jsonl./{up}"),
        ("backslashes", "{root}\\..\\..\\..\\{tail}"),
        ("backslashes without a root", "..\\..\\..\\{tail}"),
        ("backslashes and slashes", "{root}\\../..\\../{tail}"),
        ("a backslash before each slash", "\\/{bare}"),
        ("white space around it", "  {target}\u00a0 "),
        ("line ends around it", "\n{target}\r\n"),
        ("two slashes at the start", "/{target}"),
        ("three slashes at the start", "//{target}"),
        ("dot and slash at the start", "/.{target}"),
        ("dots above the root of the disk", "/../../..{target}"),
        ("doubled slashes inside", "{root}////..//..////{tail}"),
        ("the home folder", "~/{home}"),
        ("the home folder of root", "~root/../{bare}"),
        ("the home of nobody", "~nobody-is-called-so/{bare}"),
        ("the folder before this one, as shells know it", "~-/{bare}"),
        ("a variable of the shell", "$HOME/{home}"),
        ("a variable in braces", "${HOME}/{home}"),
        ("a variable of Windows", "%USERPROFILE%\\..\\{tail}"),
        ("a command in backquotes", "`echo {target}`"),
        ("a command in brackets", "$(echo {target})"),
        ("a command after a semicolon", "x;cat {target}"),
        ("a command after a pipe", "|cat {target}"),
        ("an option", "--help={target}"),
        ("a file as an address", "file://{target}"),
        ("a file as an address of this machine", "file://localhost{target}"),
        ("a file as an address without slashes", "file:{target}"),
        ("a file as an address in capitals", "FILE:///{bare}"),
        ("an address in the network", "http://127.0.0.1:9{target}"),
        ("an address of another kind", "ftp://127.0.0.1:9{target}"),
        ("an address made of data", "data:text/plain,{target}"),
        ("a zip within an address", "zip://{target}::file://{target}"),
        ("a file of Hugging Face", "hf:{target}"),
        ("dots of Hugging Face", "hf:../../{bare}"),
        ("Hugging Face's own scheme", "hf://datasets/{bare}"),
        ("a link to the file", "{root}/link"),
        ("a link to its folder", "{root}/folder-link/{name}"),
        ("a link to a link", "{root}/chain"),
        ("a link with dots in it", "{root}/dotted-link"),
        ("the folder above a link's folder", "{root}/folder-link/../{parent}/{name}"),
        ("a link into itself", "{root}/circle"),
        ("a folder that holds a link", "{root}/holder"),
        ("a link in a folder below", "{root}/holder/rows.jsonl"),
        ("the folder of the file", "{folder}"),
        ("the root of the disk", "/"),
        ("the root as a process sees it", "/proc/self/root{target}"),
        ("the root as another process sees it", "/proc/1/root{target}"),
        ("the working folder as a process sees it", "/proc/self/cwd/{here}"),
        ("the root as a thread sees it", "/proc/thread-self/root{target}"),
        ("what a process was started with", "/proc/self/environ"),
        ("an open file of the process", "/proc/self/fd/0"),
        ("an open file as a device", "/dev/fd/0"),
        ("the standard input", "/dev/stdin"),
        ("a device without end", "/dev/zero"),
        ("a device of nothing", "/dev/null"),
        ("a connection as a device", "/dev/tcp/127.0.0.1/9"),
        ("a file of the system", "/sys/kernel/notes"),
        ("a pipe in an allowed folder", "{root}/pipe"),
        ("a NUL at the end", "{target}\0"),
        ("a NUL before an allowed ending", "{target}\0.jsonl"),
        ("a NUL before dots", "{root}/own.jsonl\0/{up}"),
        ("a NUL at the start", "\0{target}"),
        ("a line end and a header", "{target}\r\nX-Header: 1"),
        ("a delete character", "{root}/\x7f/{up}"),
        ("an escape of the terminal", "\x1b[2J{target}"),
        ("a line separator", "{root}/\u2028/{up}"),
        ("half a character", "{root}/\ud800/{up}"),
        ("a drive before it", "C:{target}"),
        ("a file of a drive", "C:\\Windows\\win.ini"),
        ("a file of a drive with slashes", "c:/Windows/win.ini"),
        ("a file of a drive's own working folder", "C:{tail}"),
        ("another machine's folder", "\\\\127.0.0.1\\share\\{tail}"),
        ("another machine's folder with slashes", "//127.0.0.1/share/{bare}"),
        ("another machine's folder, mixed", "\\/127.0.0.1/share"),
        ("another machine's folder by the long form", "\\\\?\\UNC\\127.0.0.1\\share"),
        ("a path that Windows takes as it is", "\\\\?\\C:\\Windows\\win.ini"),
        ("a disk as a device", "\\\\.\\PhysicalDrive0"),
        ("another stream of a file", "{root}/own.jsonl:hidden"),
        ("the stream that is the file", "{root}/../../{tail}::$DATA"),
        ("a device's name", "CON"),
        ("a device's name with an ending", "{root}/nul.jsonl"),
        ("a device's name with a colon", "COM1:"),
        ("a device's name with a raised number", "LPT¹"),
        ("a device's name and a space", "{root}/aux "),
        ("percent signs", "%2e%2e%2f%2e%2e%2f%2e%2e%2f{bare}"),
        ("percent signs for the slashes", "{root}/..%2f..%2f..%2f{tail}"),
        ("percent signs for the dots", "{root}/%2e%2e/%2e%2e/%2e%2e/{tail}"),
        ("percent signs for the backslashes", "..%5c..%5c..%5c{tail}"),
        ("percent signs in capitals", "%2E%2E/%2E%2E/%2E%2E/{tail}"),
        ("percent signs twice", "%252e%252e%252f%252e%252e%252f{bare}"),
        ("percent signs three times", "%25252e%25252e%25252f{bare}"),
        ("percent signs for a NUL", "{target}%00.jsonl"),
        ("a slash in more bytes than it needs", "..%c0%af..%c0%af..%c0%af{bare}"),
        ("a dot in more bytes than it needs", "%c0%ae%c0%ae/%c0%ae%c0%ae/{bare}"),
        ("sixteen bits after a percent sign", "%u002e%u002e%u2215{bare}"),
        ("a whole path in percent signs", "%2f{bare}"),
        ("HTML's way to write dots", "&#46;&#46;/&#46;&#46;/{bare}"),
        ("JSON's way to write dots", "\\u002e\\u002e/\\u002e\\u002e/{bare}"),
        ("a name that is too long", "{root}/" + "a" * LONG + "/{up}"),
        ("a path that is too long", "/" + "a/" * 3000 + "{bare}"),
        ("dots that make it too long", "{root}/" + "./" * 3000 + "{up}"),
        ("climbing for too long", "../" * 2000 + "{bare}"),
        ("dots of full width", "．．/．．/．．/{bare}"),
        ("a slash of full width", "{root}/..／..／{tail}"),
        ("a division for a slash", "{root}/..\u2215..\u2215{tail}"),
        ("a fraction for a slash", "{root}/..\u2044..\u2044{tail}"),
        ("a big solidus for a slash", "{root}/..\u29f8..\u29f8{tail}"),
        ("a leader of two dots", "‥/‥/‥/{bare}"),
        ("leaders of one dot", "․․/․․/․․/{bare}"),
        ("a space of no width between dots", "{root}/.\u200b./.\u200b./{tail}"),
        ("a mark that turns the writing around", "{root}/\u202e/{up}"),
        ("a mark of the byte order", "\ufeff{target}"),
        ("other letters for the allowed folder", "{lookalike}/{up}"),
        ("capital letters", "{capitals}"),
        ("composed letters taken apart", "{root}/e\u0301/../{up}"),
        ("every file of the folder", "{folder}/*"),
        ("one of several", "{folder}/{{name},x}"),
        ("a range of letters", "{folder}/[a-z]*"),
    )
)
# Of each kind one, for the default run.
_SAMPLE = (
    *("the file itself", "dots out of an allowed folder", "dots from the working folder", "backslashes"),
    *("three slashes at the start", "the home folder", "a file as an address", "a link to the file"),
    *("a folder that holds a link", "the root as a process sees it", "a pipe in an allowed folder"),
    *("a NUL before an allowed ending", "a drive before it", "another machine's folder with slashes"),
    *("percent signs for the slashes", "a path that is too long", "dots of full width", "capital letters"),
)
SAMPLE = tuple(trick for trick in TRICKS if trick.name in _SAMPLE)

"""A licence of Creative Commons has one name, whatever address of theirs a page gives; nobody else's address has it."""

import pytest

from tasks.rights.licences import is_licence, licence_name


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("http://creativecommons.org/licenses/by/4.0", "CC BY 4.0"),
        ("https://www.creativecommons.org/licenses/by/4.0/", "CC BY 4.0"),
        ("//creativecommons.org/licenses/by/4.0/deed.de", "CC BY 4.0"),
        ("https://creativecommons.org/licenses/BY-NC-ND/3.0/legalcode.txt", "CC BY-NC-ND 3.0"),
        ("https://creativecommons.org/licenses/by/4.0/?ref=chooser-v1", "CC BY 4.0"),
        ("https://creativecommons.org:443/licenses/by/4.0/#deed", "CC BY 4.0"),
        ("https://creativecommons.org/licenses/sampling+/1.0/", "CC SAMPLING+ 1.0"),
        # A ported licence is another text.
        ("https://creativecommons.org/licenses/by-sa/2.5/ch/deed.en", "CC BY-SA 2.5 CH"),
        ("https://creativecommons.org/licenses/by/3.0/igo/legalcode", "CC BY 3.0 IGO"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0 1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/deed.fr", "Public Domain Mark 1.0"),
    ],
)
def test_every_address_of_a_licence_gives_its_one_name(address: str, name: str) -> None:
    assert is_licence(address)
    assert licence_name(address) == name


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/creativecommons.org/licenses/by/4.0/",
        "https://evil.example/?u=https://creativecommons.org/licenses/by/4.0/",
        "https://creativecommons.org.evil.example/licenses/by/4.0/",
        "https://creativecommons.org/licenses/by-nonsense/4.0/",
        "https://creativecommons.org/licenses/GPL/2.0/",
        "https://site.example/license",
        "http://[::1/license",
        "MIT",
    ],
)
def test_what_is_no_licence_of_creative_commons_is_not_called_one(address: str) -> None:
    assert licence_name(address) == address


@pytest.mark.parametrize("address", ["https://creativecommons.org/", "https://creativecommons.org/licenses/"])
def test_creative_commons_itself_is_no_licence(address: str) -> None:
    assert not is_licence(address)

"""Config providers (KIP-297): variables in server.properties.

golden/providers.json has the outcome of each case in Apache Kafka: the values of its settings, or
why it refused to start. `--broker apache-kafka --record` records the cases that it runs.
"""

import json
import os
import shutil

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource
from harness.broker import KAFKA_KIND, Broker
from harness.paths import GOLDEN

OUTCOMES = GOLDEN / "providers.json"
CLASSES = "org.apache.kafka.common.config.provider."
PROVIDERS = {
    "config.providers": "env,file,dir",
    "config.providers.env.class": f"{CLASSES}EnvVarConfigProvider",
    "config.providers.file.class": f"{CLASSES}FileConfigProvider",
    "config.providers.dir.class": f"{CLASSES}DirectoryConfigProvider",
}
ENVIRONMENT = {
    "RACK": "r1",
    "HIDDEN": "s3cret",
    "LOOP": "${env:RACK}",
    "EMPTY": "",
    "SPACED": "  padded  ",
    "NUMBER": "7",
    "NODE": "1",
    "lower.case": "r9",
}
SECRETS = r"""
rack = r2
rack: r3
a\:b=r4
key\ with\ spaces=r5
empty=
nested=${env:RACK}
accents=\u00e9t\u00e9
long=one \
    two
"""


def rack(value):
    return {"broker.rack": value}


def of(provider, **settings):
    return {f"config.providers.{provider}.{name.replace('_', '.')}": v for name, v in settings.items()}


ALLOWED = {**of("file", param_allowed_paths="{dir}/in"), **of("dir", param_allowed_paths="{dir}/in")}

CASES = {
    # Syntax of variables, and their values.
    "env": rack("${env:RACK}"),
    "env-within-text": rack("a-${env:RACK}-${env:RACK}-b"),
    "env-missing": rack("${env:NONE}"),
    "env-missing-and-found": rack("${env:NONE}-${env:RACK}"),
    "env-empty": rack("x${env:EMPTY}y"),
    "env-empty-alone": rack("${env:EMPTY}"),
    "env-spaced": rack("${env:SPACED}"),
    "env-spaced-name": rack("${env: RACK}-${ env:RACK}-${env:RACK }"),
    "env-dotted-name": rack("${env:lower.case}"),
    "env-with-path": rack("${env:path:RACK}"),
    "env-with-empty-path": rack("${env::RACK}"),
    "env-in-value": rack("${env:LOOP}"),
    "env-in-variable": rack("${env:${env:RACK}}"),
    "odd-dollars": rack("$${env:RACK}}"),
    "odd-open": rack("${x ${env:RACK}"),
    "odd-no-colon": rack("${x}${env:RACK}"),
    "odd-empty": rack("${}-${:}-${env:}-${:RACK}-${::}-${"),
    "other-provider": rack("${vault:x}"),
    "other-provider-and-env": rack("${vault:x}-${env:RACK}"),
    "several-providers": rack("${env:RACK}-${file:{dir}/secrets:rack}-${dir:{dir}/d:one}"),
    # Files.
    "file": rack("${file:{dir}/secrets:rack}"),
    "file-colon-in-key": rack("${file:{dir}/secrets:a:b}"),
    "file-spaces-in-key": rack("${file:{dir}/secrets:key with spaces}"),
    "file-empty-value": rack("x${file:{dir}/secrets:empty}y"),
    "file-empty-key": rack("${file:{dir}/secrets:}"),
    "file-variable-in-value": rack("${file:{dir}/secrets:nested}"),
    "file-accents": rack("${file:{dir}/secrets:accents}"),
    "file-long-line": rack("${file:{dir}/secrets:long}"),
    "file-no-key": rack("${file:{dir}/secrets:none}"),
    "file-none": rack("${file:{dir}/none:rack}"),
    "file-is-directory": rack("${file:{dir}/d:rack}"),
    "file-not-utf8": rack("${file:{dir}/latin1:rack}"),
    "file-bad-escape": rack("${file:{dir}/escape:rack}"),
    "file-no-path": rack("${file:rack}"),
    "file-empty-path": rack("${file::rack}"),
    "file-relative": rack("${file:secrets:rack}"),
    "file-relative-up": rack("${file:d/../secrets:rack}"),
    # Directories.
    "dir": rack("${dir:{dir}/d:one}"),
    "dir-within-text": rack("x${dir:{dir}/d:one}y"),
    "dir-empty-file": rack("x${dir:{dir}/d:empty}y"),
    "dir-link": rack("x${dir:{dir}/d:link}y"),
    "dir-broken-link": rack("${dir:{dir}/d:broken}"),
    "dir-no-file": rack("${dir:{dir}/d:none}"),
    "dir-sub-directory": rack("${dir:{dir}/d:sub}"),
    "dir-file-in-sub-directory": rack("${dir:{dir}/d:sub/two}"),
    "dir-file-above": rack("${dir:{dir}/d:../secrets}"),
    "dir-none": rack("${dir:{dir}/none:one}"),
    "dir-is-file": rack("${dir:{dir}/secrets:rack}"),
    "dir-not-utf8": rack("${dir:{dir}:latin1}"),
    "dir-relative": rack("${dir:d:one}"),
    "dir-no-path": rack("${dir:one}"),
    # Allowed paths.
    "allowed-file": rack("${file:{dir}/in/secrets:rack}") | ALLOWED,
    "allowed-file-outside": rack("${file:{dir}/secrets:rack}") | ALLOWED,
    "allowed-file-dots": rack("${file:{dir}/in/../secrets:rack}") | ALLOWED,
    "allowed-file-dots-inside": rack("${file:{dir}/d/../in/secrets:rack}") | ALLOWED,
    "allowed-file-same-prefix": rack("${file:{dir}/inner/secrets:rack}") | ALLOWED,
    "allowed-file-relative": rack("${file:in/secrets:rack}") | ALLOWED,
    "allowed-dir": rack("${dir:{dir}/in:one}") | ALLOWED,
    "allowed-dir-outside": rack("${dir:{dir}/d:one}") | ALLOWED,
    "allowed-missing-file": rack("${file:{dir}/in/none:rack}") | ALLOWED,
    "paths-relative": rack("x") | of("file", param_allowed_paths="in"),
    "paths-missing": rack("x") | of("file", param_allowed_paths="{dir}/none"),
    "paths-missing-of-dir": rack("x") | of("dir", param_allowed_paths="{dir}/none"),
    "paths-is-the-file": rack("${file:{dir}/secrets:rack}")
    | of("file", param_allowed_paths="{dir}/secrets"),
    "paths-empty": rack("${file:{dir}/secrets:rack}") | of("file", param_allowed_paths=""),
    "paths-two": rack("${file:{dir}/secrets:rack}")
    | of("file", param_allowed_paths="{dir}/in,{dir}/secrets"),
    "paths-two-with-space": rack("x") | of("file", param_allowed_paths="{dir}/in, {dir}/d"),
    "paths-comma-alone": rack("${file:{dir}/secrets:rack}") | of("file", param_allowed_paths=","),
    "paths-comma-last": rack("${file:{dir}/in/secrets:rack}")
    | of("file", param_allowed_paths="{dir}/in,"),
    "paths-comma-first": rack("x") | of("file", param_allowed_paths=",{dir}/in"),
    "paths-from-variable": rack("x") | of("file", param_allowed_paths="${env:RACK}"),
    "paths-without-param": rack("${file:{dir}/secrets:rack}") | of("file", allowed_paths="in"),
    "pattern": rack("${env:RACK}-${env:HIDDEN}") | of("env", param_allowlist_pattern="RA.*"),
    "pattern-of-a-part": rack("${env:RACK}") | of("env", param_allowlist_pattern="ACK"),
    "pattern-alternatives": rack("${env:RACK}-${env:HIDDEN}-${env:NUMBER}")
    | of("env", param_allowlist_pattern="RACK|NUMBER"),
    "pattern-empty": rack("${env:RACK}") | of("env", param_allowlist_pattern=""),
    "pattern-invalid": rack("x") | of("env", param_allowlist_pattern="("),
    "pattern-look-ahead": rack("${env:RACK}-${env:HIDDEN}")
    | of("env", param_allowlist_pattern="(?!HID).*"),
    "pattern-possessive": rack("${env:RACK}") | of("env", param_allowlist_pattern="R[A-Z&&[^B]]++"),
    # Lists of providers.
    "no-providers": rack("${env:RACK}") | {"config.providers": None},
    "providers-empty": rack("${env:RACK}") | {"config.providers": ""},
    "providers-not-listed": rack("${env:RACK}") | {"config.providers": "file"},
    "providers-spaced": rack("${env:RACK}-${dir:{dir}/d:none}") | {"config.providers": "env, dir"},
    "providers-empty-names": rack("${env:RACK}") | {"config.providers": ",env,,"},
    "providers-twice": rack("${env:RACK}") | {"config.providers": "env,env"},
    "providers-from-variable": rack("${env:RACK}") | {"config.providers": "${env:RACK}"},
    "provider-of-another-name": rack("${e-1.x:RACK}")
    | {"config.providers": "e-1.x", "config.providers.e-1.x.class": f"{CLASSES}EnvVarConfigProvider"},
    "class-missing": rack("${env:RACK}") | of("env", **{"class": None}),
    "class-empty": rack("x") | of("env", **{"class": ""}),
    "class-unknown": rack("x") | of("env", **{"class": "com.example.Vault"}),
    "class-unknown-and-not-listed": rack("x")
    | of("vault", **{"class": "com.example.Vault"}),
    "class-of-another-kind": rack("x") | of("env", **{"class": "java.lang.String"}),
    "class-without-package": rack("x") | of("env", **{"class": "EnvVarConfigProvider"}),
    "class-spaced": rack("x") | of("env", **{"class": f"{CLASSES}EnvVarConfigProvider "}),
    "class-from-variable": rack("x") | of("env", **{"class": "${env:RACK}"}),
    # Settings that are no strings, and those that a start reads first.
    "number": {"num.partitions": "${env:NUMBER}"},
    "number-spaced": {"num.partitions": " ${env:NUMBER} "},
    "number-in-parts": {"num.partitions": "1${env:NUMBER}"},
    "number-missing": {"num.partitions": "${env:NONE}"},
    "number-of-text": {"num.partitions": "${env:RACK}"},
    "node-id": {"node.id": "${env:NODE}"},
    "roles": {"process.roles": "${file:{dir}/start:roles}"},
    "listeners": {"listeners": "${file:{dir}/start:listeners}"},
    "listener-in-parts": {"listeners": "PLAINTEXT://${file:{dir}/start:broker},CONTROLLER://${file:{dir}/start:controller}"},
    "voters": {"controller.quorum.voters": "${env:NODE}@${file:{dir}/start:controller}"},
    "log-dirs": {"log.dirs": "${file:{dir}/start:data}"},
    "key-with-variable": {"num.${env:RACK}": "3"},
}  # fmt: skip
CONFIG_EXCEPTION = "org.apache.kafka.common.config.ConfigException: "
# Cases in which Sordini differs.
DIFFERENT = {
    # Apache Kafka's DescribeConfigs resolves variables in the values of providers again. Both
    # brokers use the same value: the registered racks are equal.
    "env-in-value": {"values": {"broker.rack": "${env:RACK}"}},
    "file-variable-in-value": {"values": {"broker.rack": "${env:RACK}"}},
    # Sordini refuses patterns that only Java's regular expressions support.
    "pattern-look-ahead": {"refused": "allowlist.pattern (?!HID).* cannot be used"},
    "pattern-possessive": {"refused": "allowlist.pattern R[A-Z&&[^B]]++ cannot be used"},
}


@pytest.fixture(scope="module")
def outcomes(request):
    """The outcomes in Apache Kafka, by case."""
    known = json.loads(OUTCOMES.read_text()) if OUTCOMES.exists() else {}
    yield known
    if request.config.getoption("--record"):
        kept = {case: known[case] for case in CASES if case in known}
        OUTCOMES.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


@pytest.fixture(scope="module")
def formatted(kind, tmp_path_factory):
    """A formatted data directory for Apache Kafka. Sordini needs none."""
    if kind != KAFKA_KIND:
        return None
    broker = Broker(kind, tmp_path_factory.mktemp("formatted")).start()
    broker.stop()
    return broker.data


def write_files(directory, broker):
    start = {
        "roles": "broker,controller",
        "listeners": broker.properties()["listeners"],
        "broker": broker.bootstrap,
        "controller": f"127.0.0.1:{broker.controller_port}",
        "data": broker.data,
    }
    for folder in ("d/sub", "in", "inner"):
        (directory / folder).mkdir(parents=True)
    for name, content in {
        "secrets": SECRETS,
        "in/secrets": SECRETS,
        "inner/secrets": SECRETS,
        "escape": "rack=\\u12g4\n",
        "start": "".join(f"{key}={value}\n" for key, value in start.items()),
        "d/one": "v1\n",
        "d/empty": "",
        "d/sub/two": "v2",
        "in/one": "v3",
        "linked": "v4",
    }.items():
        (directory / name).write_text(content)
    (directory / "latin1").write_bytes("rack=\u00e9t\u00e9\n".encode("latin-1"))
    (directory / "d/link").symlink_to(directory / "linked")
    (directory / "d/broken").symlink_to(directory / "none")


def outcome(broker, settings):
    """Starts the broker. Returns the values of its settings, or the log of a refused start."""
    try:
        broker.start()
    except RuntimeError:
        return {"refused": masked((broker.dir / "broker.log").read_text(), broker)}
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    resource = ConfigResource(ConfigResource.Type.BROKER, "1")
    found = admin.describe_configs([resource])[resource].result(30)
    names = [name for name in settings if not name.startswith("config.providers")]
    values = {name: found[name].value if name in found else None for name in names}
    registered = admin.describe_cluster().result(30).nodes[0].rack
    if values.get("broker.rack") not in (None, registered):
        values["registered rack"] = registered
    return {"values": {name: value and masked(value, broker) for name, value in values.items()}}


def masked(text, broker):
    text = text.replace(str(broker.dir), "{dir}")
    text = text.replace(f":{broker.port}", ":{port}")
    return text.replace(f":{broker.controller_port}", ":{controller}")


def exception(log):
    """Returns the exception that ended Apache Kafka, with its text."""
    lines = log.splitlines()
    at = next(number for number, line in enumerate(lines) if "Exiting Kafka due to fatal" in line)
    return next(line for line in lines[at + 1 :] if "Exception" in line)


@pytest.mark.parametrize("case", CASES)
def test_variables_come_to_what_apache_kafka_makes_of_them(
    kind, formatted, outcomes, case, tmp_path, monkeypatch, request
):
    broker = Broker(kind, tmp_path)
    write_files(tmp_path, broker)
    if formatted is not None:
        shutil.copytree(formatted, broker.data)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    settings = (PROVIDERS | CASES[case]).items()
    broker.settings.update(
        {name: value.replace("{dir}", str(tmp_path)) for name, value in settings if value is not None}
    )
    try:
        found = outcome(broker, CASES[case])
    finally:
        broker.kill()
    if kind == KAFKA_KIND:
        if "refused" in found:
            found["refused"] = exception(found["refused"])
        if request.config.getoption("--record"):
            outcomes[case] = found
        assert found == outcomes[case]
        return
    expected = DIFFERENT.get(case, outcomes[case])
    if "values" in expected:
        assert found == expected
        return
    assert "refused" in found, found
    text = expected["refused"].removeprefix(CONFIG_EXCEPTION)
    # Sordini's text lists the available classes instead.
    text = text.removesuffix(": Could not load config provider class or one of its dependencies")
    is_java = expected["refused"].startswith("java.")
    assert is_java or text in found["refused"]

"""kafka-acls, kafka-delegation-tokens, kafka-transactions list, and kafka-configs of users and
clients, on a broker without an authorizer and without users."""


def test_acls(shell):
    shell("kafka-acls --list")
    shell("kafka-acls --list --topic any")
    shell("kafka-acls --add --allow-principal User:any --operation read --topic any")
    shell("kafka-acls --remove --force --allow-principal User:any --operation read --topic any")


def test_delegation_tokens(shell, broker):
    config = broker.dir / "client.properties"
    config.write_text("client.id=tokens\n")
    tool = f"kafka-delegation-tokens --command-config {config}"
    shell(f"{tool} --describe")
    shell(f"{tool} --create --max-life-time-period -1 --renewer-principal User:any")
    shell(f"{tool} --renew --renew-time-period -1 --hmac bm9uZQ==")
    shell(f"{tool} --expire --expiry-time-period -1 --hmac bm9uZQ==")


def test_users_and_clients(shell):
    for kind in ("users", "clients", "ips"):
        shell(f"kafka-configs --describe --entity-type {kind}")
        shell(f"kafka-configs --describe --entity-type {kind} --entity-default")
    for kind, name in {"users": "any", "clients": "any", "ips": "127.0.0.1"}.items():
        shell(f"kafka-configs --describe --entity-type {kind} --entity-name {name}")
    shell("kafka-configs --describe --entity-type users --entity-type clients")


def test_transactions(shell):
    shell("kafka-transactions list --transactional-id-pattern a.*")
    shell("kafka-transactions list --transactional-id-pattern (")

"""Tests of the dashboards in grafana/: each query returns data in the engine of Prometheus.

These tests scrape a broker under load, as Prometheus does. The program in `compat-tests/grafana/`
evaluates PromQL over the scrapes.
"""

import contextlib
import http.client
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness.broker import SORDINI_KIND, Broker
from harness.paths import FETCHED, ROOT
from harness.programs import build_go

GRAFANA = ROOT / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
SCRAPE_EVERY_S = 0.5
LOAD_S = 5
TIMEOUT_S = 30
RATE_INTERVAL = "5s"
# The value of the label `instance` that a scrape adds.
INSTANCE = "broker:9644"
# Metrics that Prometheus itself adds to a scrape.
OF_PROMETHEUS = {"up"}
# Metrics that no dashboard draws, with the reason.
NOT_DRAWN = {
    "process_virtual_memory_bytes": "reserved address space costs nothing; resident memory does",
}


def panels(listed):
    for panel in listed:
        yield panel
        yield from panels(panel.get("panels", []))


def variables(dashboard):
    return [each for each in dashboard["templating"]["list"] if each["type"] == "query"]


def question(promql, dashboard, instant=False):
    """A query as Grafana sends it while all variables are at «All»."""
    for variable in variables(dashboard):
        promql = promql.replace(f"${variable['name']}", variable.get("allValue", INSTANCE))
    promql = promql.replace("$__rate_interval", RATE_INTERVAL)
    assert "$" not in promql
    return {"expr": promql, "instant": instant}


def queries(file):
    """Yields all queries of a dashboard: the place, the query, and the labels that it shows."""
    dashboard = json.loads(file.read_text())
    for panel in panels(dashboard["panels"]):
        for target in panel.get("targets", []):
            asks = question(target["expr"], dashboard, target.get("instant", False))
            shown = re.findall(r"{{(\w+)}}", target.get("legendFormat", ""))
            if target.get("format") == "table":
                shown += re.search(r"by \((.*?)\)", target["expr"])[1].split(", ")
            yield f"{panel['title']} {target['refId']}", asks, shown
    for note in dashboard["annotations"]["list"]:
        shown = re.findall(r"{{(\w+)}}", note["titleFormat"])
        yield note["name"], question(note["expr"], dashboard), shown
    for variable in variables(dashboard):
        metric, label = re.fullmatch(
            r"label_values\((.*), (\w+)\)", variable["query"]["query"]
        ).groups()
        yield f"${variable['name']}", question(metric, dashboard), [label]


@pytest.fixture(scope="module")
def promql(kind):
    """Compiles the program that evaluates queries."""
    if kind != SORDINI_KIND:
        pytest.skip("the metrics are Sordini's own")
    program = FETCHED / "promql"
    build_go("grafana", ".", program)
    return program


@pytest.fixture(scope="module")
def scrapes(kind, promql, tmp_path_factory):
    """A folder with scrapes of a broker under load, which is killed and restarted meanwhile."""
    folder = tmp_path_factory.mktemp("scrapes")
    broker = Broker(kind, tmp_path_factory.mktemp("broker"))
    try:
        with scraping(broker, folder):
            broker.start()
            admin = AdminClient({"bootstrap.servers": broker.bootstrap})
            topics = [
                NewTopic("orders", 3, 1, config={"flush.messages": "1"}),
                NewTopic("notes", 1, 1, config={"max.message.bytes": "1000"}),
            ]
            for created in admin.create_topics(topics).values():
                created.result(TIMEOUT_S)
            load(broker)
            broker.kill()
            broker.start()
            load(broker)
    finally:
        broker.kill()
    return folder


@contextlib.contextmanager
def scraping(broker, folder):
    """Scrapes the broker until the end of the block. A failed scrape leaves an empty file."""
    ended = threading.Event()

    def scrape():
        while not ended.wait(SCRAPE_EVERY_S):
            at = time.time_ns() // 1_000_000
            (folder / f"{at}.prom").write_bytes(fetch_metrics(broker))

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        yield
    finally:
        ended.set()
        scraper.join()


def fetch_metrics(broker):
    url = f"http://127.0.0.1:{broker.http_port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read()
    except (OSError, http.client.HTTPException):
        return b""


def load(broker):
    """Produces, consumes with a group that keeps up and one that lags, and causes errors."""
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    produce(producer, 200)
    assert producer.flush(TIMEOUT_S) == 0
    late = reader(broker, "late")
    late.commit(message=late.consume(1, TIMEOUT_S)[0], asynchronous=False)
    late.close()
    swift = reader(broker, "swift")
    for _ in range(LOAD_S * 10):
        produce(producer, 20)
        swift.consume(100, 0.1)
        with contextlib.suppress(KafkaException):
            swift.commit(asynchronous=False)
    err(broker, producer)
    time.sleep(2 * SCRAPE_EVERY_S)
    swift.close()
    assert producer.flush(TIMEOUT_S) == 0


def produce(producer, count):
    for _ in range(count):
        producer.produce("orders", b"v" * 100)


def reader(broker, group):
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe(["orders"])
    return consumer


def err(broker, producer):
    """Sends a Produce and a Fetch that the broker refuses."""
    errors = []
    producer.produce("notes", b"v" * 5_000, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(TIMEOUT_S) == 0
    assert errors[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    lost = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "lost",
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
        }
    )
    lost.assign([TopicPartition("orders", 0, 1_000_000)])
    assert lost.poll(TIMEOUT_S).error().code() == KafkaError._AUTO_OFFSET_RESET
    lost.close()


def ask(promql, scrapes, questions):
    done = subprocess.run(
        [promql, scrapes], input=json.dumps(questions), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def complaint(answer, labels=()):
    """Returns why a result is not data, or None. Each label must be on some series."""
    if "error" in answer:
        return answer["error"]
    if not answer["series"]:
        return "no series"
    if not any(series["numbers"] for series in answer["series"]):
        return "nothing but NaN"
    found = set().union(*(series["labels"] for series in answer["series"]))
    missing = [label for label in labels if label not in found]
    return f"no label {missing}" if missing else None


def families(scrapes):
    """Returns the metrics of the last scrape: name to type. Fails on one without HELP or TYPE."""
    text = max(scrapes.glob("*.prom"), key=lambda file: file.name).read_text()
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
    assert types.keys() == set(re.findall(r"^# HELP (\w+) \S.*$", text, re.M))
    for name in re.findall(r"^(\w+)[ {]", text, re.M):
        assert family(name, types) in types, f"{name} has no TYPE"
    return types


def family(name, types):
    """Returns the metric of a series: for a histogram, the name without its suffix."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if types.get(base) == "histogram" else name


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_every_query_returns_data(promql, scrapes, file):
    asked = list(queries(file))
    assert len(asked) > 5
    answers = ask(promql, scrapes, [asks for _, asks, _ in asked])
    types = families(scrapes)
    wrong = []
    for (where, asks, labels), answer in zip(asked, answers, strict=True):
        why = complaint(answer, labels)
        if why:
            wrong.append(f"{where}: {why}: {asks['expr']}")
        for name in answer["metrics"] or []:
            if name not in OF_PROMETHEUS and family(name, types) not in types:
                wrong.append(f"{where}: the broker has no {name}")
    assert not wrong, "\n".join(wrong)


def test_every_metric_is_drawn(promql, scrapes):
    asked = [asks for file in DASHBOARDS for _, asks, _ in queries(file)]
    types = families(scrapes)
    drawn = {
        family(name, types)
        for answer in ask(promql, scrapes, asked)
        for name in answer["metrics"]
    }  # fmt: skip
    assert types.keys() - drawn == NOT_DRAWN.keys()


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("rate(kafka_topic_bytes_inn_total[5s])", "no series"),
        ('kafka_log_size_bytes{topc="orders"}', "no series"),
        ("kafka_log_size_bytes * 0 / 0", "nothing but NaN"),
        ("sum by (topic) (kafka_log_size_bytes", "parse error"),
    ],
)
def test_a_query_without_data_is_found(promql, scrapes, query, why):
    asked = [{"expr": query, "instant": instant} for instant in (False, True)]
    for answer in ask(promql, scrapes, asked):
        assert why in (complaint(answer) or "")


def test_dashboards_are_what_generate_writes():
    sys.path.insert(0, str(GRAFANA))
    try:
        import generate
    finally:
        sys.path.remove(str(GRAFANA))
    assert {file.name: file.read_text() for file in DASHBOARDS} == generate.files(), (
        "run grafana/generate.py"
    )


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_a_dashboard_is_complete(file):
    """A dashboard has what a stock Grafana needs, and titles, units and descriptions."""
    dashboard = json.loads(file.read_text())
    assert dashboard["uid"] == f"sordini-{file.stem}"
    chosen = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert chosen[:2] == ["datasource", "instance"]
    every = list(panels(dashboard["panels"]))
    assert sorted(panel["id"] for panel in every) == list(range(1, len(every) + 1))
    for panel in every:
        if panel["type"] == "row":
            continue
        assert re.fullmatch(r"[A-Z].*[^.]\.", panel["description"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            used = set(re.findall(r"\$(?!__)(\w+)", target["expr"]))
            assert used and used <= set(chosen), target["expr"]


def test_provisioning_hangs_together():
    """The files of grafana/ and compose.yaml agree on paths, ports and times."""
    compose = (ROOT / "compose.yaml").read_text()
    mounts = dict(re.findall(r"- \./(grafana/\S+?):(\S+?):ro", compose))
    files = {name: (GRAFANA / name).read_text() for name in ("datasources.yaml", "dashboards.yaml")}
    assert mounts.keys() == {f"grafana/{name}" for name in (*files, "prometheus.yml", "dashboards")}
    assert all((ROOT / path).exists() for path in mounts)
    folder = mounts["grafana/dashboards"]
    assert f"path: {folder}\n" in files["dashboards.yaml"]
    assert f"HOME_DASHBOARD_PATH: {folder}/overview.json\n" in compose
    scrape = (GRAFANA / "prometheus.yml").read_text()
    port = re.search(r"KAFKA_HTTP_LISTENER=0.0.0.0:(\d+)", (ROOT / "Dockerfile").read_text())[1]
    assert f'targets: ["sordini:{port}"]' in scrape
    every = re.search(r"scrape_interval: (\w+)", scrape)[1]
    assert f"timeInterval: {every} " in files["datasources.yaml"]

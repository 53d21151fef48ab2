#!/usr/bin/env python3
"""Writes dashboards/*.json: change a panel here, then run this.

In the queries, BROKER, TOPIC and GROUP select the series that the reader picked at the top of the
dashboard, and RATE is a window that suits the zoom.
"""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "dashboards"
WORDS = {
    "BROKER": 'instance=~"$instance"',
    "TOPIC": 'instance=~"$instance",topic=~"$topic"',
    "GROUP": 'instance=~"$instance",consumergroup=~"$group"',
    "READ": 'instance=~"$instance",consumergroup=~"$group",topic=~"$topic"',
    "RATE": "$__rate_interval",
}
WIDTH = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def promql(text):
    return re.sub(r"\b(BROKER|TOPIC|GROUP|READ|RATE)\b", lambda word: WORDS[word[0]], text)


def panel(kind, title, says, unit, queries, size, options, query=None, **defaults):
    """A panel without its place. `queries` are PromQL by legend."""
    targets = [
        {"refId": chr(ord("A") + at), "expr": promql(text), "legendFormat": legend, **(query or {})}
        for at, (legend, text) in enumerate(queries.items())
    ]
    return {
        "type": kind,
        "title": title,
        "description": says,
        "datasource": DATASOURCE,
        "gridPos": {"w": size[0], "h": size[1]},
        "fieldConfig": {"defaults": {"unit": unit, **defaults}, "overrides": []},
        "options": options,
        "targets": targets,
    }


def graph(title, says, unit, queries, width=8):
    """Lines over time."""
    legend = {"showLegend": True, "displayMode": "table", "placement": "bottom"}
    options = {
        "legend": {**legend, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    custom = {"fillOpacity": 10, "showPoints": "never"}
    return panel("timeseries", title, says, unit, queries, (width, 9), options, custom=custom)


def stat(title, says, unit, text, legend="", alarm=None, states=()):
    """One number of now: red from `alarm` on; `states` are the text and colour of 0, 1, ..."""
    steps = [{"color": "green", "value": None}]
    if alarm is not None:
        steps.append({"color": "red", "value": alarm})
    mapped = {str(at): {"text": name, "color": color} for at, (name, color) in enumerate(states)}
    options = {"graphMode": "none", "textMode": "name" if legend else "auto"}
    made = panel("stat", title, says, unit, {legend: text}, (3, 4), options, {"instant": True})
    made["fieldConfig"]["defaults"] |= {
        "noValue": "no data",
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [{"type": "value", "options": mapped}] if mapped else [],
    }
    return made


def bars(title, says, unit, queries, width=8):
    """Values of now, a bar each."""
    options = {"orientation": "horizontal", "displayMode": "basic"}
    query = {"instant": True}
    return panel("bargauge", title, says, unit, queries, (width, 9), options, query, min=0)


def table(title, says, keys, columns):
    """Values of now, a line for each combination of `keys`; columns are (unit, PromQL) by name."""
    queries = {name: text for name, (_, text) in columns.items()}
    query = {"instant": True, "format": "table"}
    made = panel("table", title, says, "none", queries, (WIDTH, 11), {"cellHeight": "sm"}, query)
    made["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "unit", "value": unit}],
        }
        for name, (unit, _) in columns.items()
    ]
    names = {f"Value #{each['refId']}": each.pop("legendFormat") for each in made["targets"]}
    shown = {
        "excludeByName": {"Time": True},
        "indexByName": {name: at for at, name in enumerate([*keys, *names])},
        "renameByName": names,
    }
    made["transformations"] = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": shown},
    ]
    return made


def row(title, *panels, collapsed=False):
    """Panels under a heading. A collapsed row costs no query until it is opened."""
    heading = {"type": "row", "title": title, "gridPos": {"w": WIDTH, "h": 1}}
    return {**heading, "collapsed": collapsed, "panels": []}, panels


def variable(name, label, values, metric, **more):
    """A choice at the top of the dashboard, of what a label's values are."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": promql(f"label_values({metric}, {values})"), "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
        **more,
    }


def place(rows):
    """Gives the panels their numbers and places: side by side, in as many lines as they need."""
    x = y = height = number = 0
    placed = []
    for heading, panels in rows:
        for each in (heading, *panels):
            width = each["gridPos"]["w"]
            if x + width > WIDTH:
                x, y, height = 0, y + height, 0
            number += 1
            each["id"] = number
            each["gridPos"] = {"x": x, "y": y, **each["gridPos"]}
            x, height = x + width, max(height, each["gridPos"]["h"])
        heading["panels"] = list(panels) if heading["collapsed"] else []
        placed += [heading] if heading["collapsed"] else [heading, *panels]
    return placed


def dashboard(name, title, variables, *rows):
    source = {"name": "datasource", "label": "source", "type": "datasource", "query": "prometheus"}
    # «All» stands for the brokers that there are: `up` and `process_*` have other targets too.
    brokers = variable("instance", "broker", "instance", "kafka_server_build_info")
    links = {
        "type": "dashboards",
        "title": "Sordini",
        "tags": ["sordini"],
        "icon": "external link",
        "tooltip": "",
        "asDropdown": False,
        "targetBlank": False,
        "includeVars": True,
        "keepTime": True,
    }
    starts = {
        "name": "starts of a broker",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "orange",
        "expr": promql("process_start_time_seconds{BROKER} * 1000"),
        "useValueForTime": True,
        "titleFormat": "{{instance}} started",
    }
    return {
        "uid": f"sordini-{name}",
        "title": f"Sordini: {title}",
        "tags": ["sordini"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [links],
        "annotations": {"list": [starts]},
        "templating": {"list": [source, brokers, *variables]},
        "panels": place(rows),
    }


ANY = {"allValue": ".*"}
TOPIC = variable("topic", "topic", "topic", "kafka_topic_partitions{BROKER}", **ANY)
GROUP = variable("group", "group", "consumergroup", "kafka_consumergroup_members{BROKER}", **ANY)


def latency(title, says, histogram):
    buckets = f"sum by (le) (rate({histogram}_bucket{{BROKER}}[RATE]))"
    total, count = (f"sum(rate({histogram}_{part}{{BROKER}}[RATE]))" for part in ("sum", "count"))
    return graph(title, says, "s", {
        "p50": f"histogram_quantile(0.5, {buckets})",
        "p99": f"histogram_quantile(0.99, {buckets})",
        "mean": f"{total} / {count}",
    })  # fmt: skip


# fmt: off
OVERVIEW = dashboard(
    "overview", "overview", [],
    row("Now",
        stat("Up", "Whether Prometheus reaches every broker.", "none",
             "min(up{BROKER})", states=[("down", "red"), ("up", "green")]),
        stat("Ready", "Whether every broker has finished its start and serves requests.", "none",
             "min(kafka_server_ready{BROKER})",
             states=[("starting", "orange"), ("ready", "green")]),
        stat("Running for", "Time since a broker's process started last.", "s",
             "time() - max(process_start_time_seconds{BROKER})"),
        stat("Logs to open", "Logs that the start of a broker has yet to open.", "short",
             "sum(kafka_log_recovery_logs_remaining{BROKER})", alarm=1),
        stat("Offline partitions", "Partitions that can be neither read nor written.", "short",
             "sum(kafka_server_offline_partitions{BROKER})", alarm=1),
        stat("Offline directories", "Log directories given up after a disk error.", "short",
             "sum(kafka_log_offline_dirs{BROKER})", alarm=1),
        stat("Furthest behind", "How late the slowest consumer group reads.", "s",
             "max(kafka_consumergroup_lag_seconds{BROKER})"),
        stat("Version", "Versions of Sordini that run.", "none",
             "count by (version) (kafka_server_build_info{BROKER})", legend="{{version}}")),
    row("Requests",
        graph("Requests", "Requests per second, by API.", "reqps", {
            "{{api}}": "sum by (api) (rate(kafka_server_requests_total{BROKER}[RATE]))"}),
        graph("Errors", "Error codes per second; MEMBER_ID_REQUIRED, for one, is normal.", "cps", {
            "{{api}}: {{error}}":
                "sum by (api, error) (rate(kafka_server_request_errors_total{BROKER}[RATE]))"}),
        latency("Latency",
                "Time to answer requests of all APIs; fetches and joins of groups wait on purpose.",
                "kafka_server_request_seconds"),
        graph("Latency, p50", "Half of an API's requests were answered within this time.", "s", {
            "{{api}}": "histogram_quantile(0.5, sum by (api, le)"
                       " (rate(kafka_server_request_seconds_bucket{BROKER}[RATE])))"}),
        graph("Latency, p99", "Of an API's requests, 99 % were answered within this time.", "s", {
            "{{api}}": "histogram_quantile(0.99, sum by (api, le)"
                       " (rate(kafka_server_request_seconds_bucket{BROKER}[RATE])))"}),
        graph("Network", "Bytes per second of requests and responses.", "Bps", {
            "requests": "sum(rate(kafka_server_request_bytes_total{BROKER}[RATE]))",
            "responses": "sum(rate(kafka_server_response_bytes_total{BROKER}[RATE]))"})),
    row("Traffic and storage",
        graph("Bytes in and out", "Bytes of batches appended and fetched per second.", "Bps", {
            "in": "sum(rate(kafka_topic_bytes_in_total{BROKER}[RATE]))",
            "out": "sum(rate(kafka_topic_bytes_out_total{BROKER}[RATE]))"}),
        graph("Messages in", "Records appended per second.", "cps", {
            "in": "sum(rate(kafka_topic_messages_in_total{BROKER}[RATE]))"}),
        graph("Stored", "Bytes of record batches in all logs.", "bytes", {
            "{{instance}}": "sum by (instance) (kafka_log_size_bytes{BROKER})"})),
    row("Replication",
        graph("Replicas", "Partitions with a replica on a broker, and those led there.", "short", {
            "{{instance}}": "kafka_server_replicas{BROKER}",
            "{{instance}}: led": "kafka_server_leaders{BROKER}"}),
        graph("Under-replicated", "Partitions with replicas that are not in sync.", "short", {
            "{{instance}}": "kafka_server_under_replicated_partitions{BROKER}"}),
        graph("Near min.insync.replicas",
              "Partitions with too few replicas in sync for acks=all, and with none to spare.",
              "short", {
            "under": "sum(kafka_server_under_min_isr_partitions{BROKER})",
            "at": "sum(kafka_server_at_min_isr_partitions{BROKER})"}),
        graph("In-sync replicas", "Changes of in-sync replicas that leaders asked for.", "cps", {
            "joined": "sum(rate(kafka_server_isr_expands_total{BROKER}[RATE]))",
            "left": "sum(rate(kafka_server_isr_shrinks_total{BROKER}[RATE]))",
            "failed": "sum(rate(kafka_server_failed_isr_updates_total{BROKER}[RATE]))"}),
        graph("Replication traffic", "Bytes of batches per second between brokers.", "Bps", {
            "{{instance}}: in": "rate(kafka_server_replication_bytes_in_total{BROKER}[RATE])",
            "{{instance}}: out": "rate(kafka_server_replication_bytes_out_total{BROKER}[RATE])"}),
        graph("Replica lag", "Records that a broker's slowest replica is behind.", "short", {
            "{{instance}}": "kafka_server_replica_max_lag{BROKER}"})),
    row("Transactions",
        graph("Ended transactions", "Transactions per second by how they ended.", "cps", {
            "{{outcome}}":
                "sum by (outcome) (rate(kafka_server_transactions_ended_total{BROKER}[RATE]))"}),
        graph("Transactional ids", "Transactional ids by the state of their transaction.",
              "short", {
            "{{state}}": "sum by (state) (kafka_server_transactional_ids{BROKER})"}),
        graph("Unfinished transactions",
              "Partitions that wait for a marker, and transactions long after their timeout.",
              "short", {
            "waiting markers": "sum(kafka_server_transaction_markers_waiting{BROKER})",
            "late transactions": "sum(kafka_server_late_transactions{BROKER})"}),
        graph("Time to the last marker", "Mean time from the end of a transaction.", "s", {
            "mean": "sum(rate(kafka_server_transaction_completion_seconds_total{BROKER}[RATE]))"
                    " / clamp_min(sum(rate("
                    "kafka_server_transactions_completed_total{BROKER}[RATE])), 0.001)"})),
    row("Waiting",
        graph("Connections", "Connections that are open.", "short", {
            "{{instance}}": "kafka_server_connections{BROKER}"}),
        graph("Purgatory", "Requests and sessions that wait, by what they are.", "short", {
            "{{operation}}": "sum by (operation) (kafka_server_purgatory_size{BROKER})"}),
        graph("Furthest behind", "The ten consumer groups that read the latest.", "s", {
            "{{consumergroup}}":
                "topk(10, max by (consumergroup) (kafka_consumergroup_lag_seconds{BROKER}))"})),
)

TOPICS = dashboard(
    "topics", "topics", [TOPIC],
    row("Traffic",
        graph("Messages in", "Records appended per second.", "cps", {
            "{{topic}}": "sum by (topic) (rate(kafka_topic_messages_in_total{TOPIC}[RATE]))"}),
        graph("Bytes in", "Bytes of record batches appended per second.", "Bps", {
            "{{topic}}": "sum by (topic) (rate(kafka_topic_bytes_in_total{TOPIC}[RATE]))"}),
        graph("Bytes out", "Bytes of record batches fetched per second.", "Bps", {
            "{{topic}}": "sum by (topic) (rate(kafka_topic_bytes_out_total{TOPIC}[RATE]))"}),
        graph("Produce requests", "Produce requests per second, one for each partition.", "reqps", {
            "{{topic}}": "sum by (topic) (rate(kafka_topic_produce_requests_total{TOPIC}[RATE]))"}),
        graph("Fetch requests", "Fetch requests per second, one for each partition.", "reqps", {
            "{{topic}}": "sum by (topic) (rate(kafka_topic_fetch_requests_total{TOPIC}[RATE]))"}),
        graph("Failed", "Requests per second that failed for an unexpected reason.", "reqps", {
            "{{topic}}: produce":
                "sum by (topic) (rate(kafka_topic_failed_produce_requests_total{TOPIC}[RATE]))",
            "{{topic}}: fetch":
                "sum by (topic) (rate(kafka_topic_failed_fetch_requests_total{TOPIC}[RATE]))"})),
    row("Logs",
        graph("Size", "Bytes of record batches in the logs.", "bytes", {
            "{{topic}}": "sum by (topic) (kafka_log_size_bytes{TOPIC})"}, width=6),
        graph("Offsets", "Offsets from the start to the end of the logs.", "short", {
            "{{topic}}": "sum by (topic) (kafka_topic_partition_current_offset{TOPIC}"
                         " - kafka_topic_partition_oldest_offset{TOPIC})"}, width=6),
        graph("Segments", "Segments of the logs.", "short", {
            "{{topic}}": "sum by (topic) (kafka_log_segments{TOPIC})"}, width=6),
        graph("Partitions", "Partitions of the topics.", "short", {
            "{{topic}}": "max by (topic) (kafka_topic_partitions{TOPIC})"}, width=6)),
    row("Replication",
        graph("Replicas", "Replicas of all partitions, and those of them in sync.", "short", {
            "{{topic}}": "sum by (topic) (kafka_topic_partition_replicas{TOPIC})",
            "{{topic}}: in sync":
                "sum by (topic) (kafka_topic_partition_in_sync_replica{TOPIC})"}, width=12),
        graph("Under-replicated", "Partitions with replicas that are not in sync.", "short", {
            "{{topic}}": "sum by (topic)"
                         " (kafka_topic_partition_under_replicated_partition{TOPIC})"}, width=12)),
    row("Partitions",
        table("Partitions", "What the log of each partition holds.", ["topic", "partition"], {
            "first offset": (
                "none", "max by (topic, partition) (kafka_topic_partition_oldest_offset{TOPIC})"),
            "end offset": (
                "none", "max by (topic, partition) (kafka_topic_partition_current_offset{TOPIC})"),
            "size": ("bytes", "max by (topic, partition) (kafka_log_size_bytes{TOPIC})"),
            "segments": ("none", "max by (topic, partition) (kafka_log_segments{TOPIC})"),
            "replicas": (
                "none", "max by (topic, partition) (kafka_topic_partition_replicas{TOPIC})"),
            "in sync": (
                "none",
                "max by (topic, partition) (kafka_topic_partition_in_sync_replica{TOPIC})")}),
        collapsed=True),
)

GROUPS = dashboard(
    "groups", "consumer groups", [GROUP, TOPIC],
    row("Groups",
        table("Groups", "State, members and lag of each group.", ["consumergroup", "state"], {
            "groups": ("none", "max by (consumergroup, state) (kafka_consumergroup_state{GROUP})"),
            "members": ("none", "max by (consumergroup) (kafka_consumergroup_members{GROUP})"),
            "lag": ("short", "sum by (consumergroup) (kafka_consumergroup_lag{READ})"),
            "lag in time": (
                "s", "max by (consumergroup) (kafka_consumergroup_lag_seconds{READ})")}),
        graph("Lag", "Records that a group has yet to read, by its committed offsets.", "short", {
            "{{consumergroup}}": "sum by (consumergroup) (kafka_consumergroup_lag{READ})"}),
        graph("Lag in time", "Age of the oldest record that a group has yet to read.", "s", {
            "{{consumergroup}}": "max by (consumergroup) (kafka_consumergroup_lag_seconds{READ})"}),
        graph("Read", "Records per second by which a group's committed offsets move on.", "cps", {
            "{{consumergroup}}":
                "sum by (consumergroup) (deriv(kafka_consumergroup_current_offset{READ}[RATE]))"}),
        graph("Members", "Members of the groups.", "short", {
            "{{consumergroup}}": "max by (consumergroup) (kafka_consumergroup_members{GROUP})"}),
        graph("States", "Groups in each state; in a rebalance a group may not read.", "short", {
            "{{state}}": "sum by (state) (kafka_server_groups{BROKER})"}),
        graph("Membership", "Requests per second by which members join, stay and leave.", "reqps", {
            "{{api}}": "sum by (api) (rate(kafka_server_requests_total"
                       '{BROKER,api=~"JoinGroup|SyncGroup|Heartbeat|LeaveGroup"}[RATE]))'})),
    row("Partitions",
        graph("Lag by partition", "The twenty partitions with the most records to read.", "short", {
            "{{consumergroup}}: {{topic}}-{{partition}}":
                "topk(20, max by (consumergroup, topic, partition)"
                " (kafka_consumergroup_lag{READ}))"}, width=WIDTH),
        table("Offsets", "How far each group has read each partition.",
              ["consumergroup", "topic", "partition"], {
            "committed offset": ("none", "max by (consumergroup, topic, partition)"
                                         " (kafka_consumergroup_current_offset{READ})"),
            "lag": ("none", "max by (consumergroup, topic, partition)"
                            " (kafka_consumergroup_lag{READ})"),
            "lag in time": ("s", "max by (consumergroup, topic, partition)"
                                 " (kafka_consumergroup_lag_seconds{READ})")}),
        collapsed=True),
)

HOST = dashboard(
    "host", "host", [],
    row("Process",
        graph("CPU", "CPU time of the process; 100 % is one core.", "percentunit", {
            "{{instance}}": "rate(process_cpu_seconds_total{BROKER}[RATE])"}, width=6),
        graph("Memory", "Resident memory of the process.", "bytes", {
            "{{instance}}": "process_resident_memory_bytes{BROKER}"}, width=6),
        graph("Open files", "File descriptors in use, and how many there may be.", "short", {
            "{{instance}}": "process_open_fds{BROKER}",
            "{{instance}}: limit": "process_max_fds{BROKER}"}, width=6),
        graph("Threads", "Threads of the process.", "short", {
            "{{instance}}": "process_threads{BROKER}"}, width=6)),
    row("Connections",
        graph("Open", "Connections that are open.", "short", {
            "{{instance}}": "kafka_server_connections{BROKER}"}, width=6),
        graph("Opened", "Connections accepted per second.", "cps", {
            "{{instance}}":
                "rate(kafka_server_connections_accepted_total{BROKER}[RATE])"}, width=6),
        graph("Closed", "Connections that ended per second, by reason.", "cps", {
            "{{reason}}": "sum by (reason)"
                          " (rate(kafka_server_connections_closed_total{BROKER}[RATE]))"}, width=6),
        graph("Fetch sessions", "Fetch sessions, and evictions of them per second.", "short", {
            "{{instance}}": "kafka_server_fetch_sessions{BROKER}",
            "{{instance}}: evicted":
                "rate(kafka_server_fetch_session_evictions_total{BROKER}[RATE])"}, width=6)),
    row("Disk",
        latency("Flush latency", "Time to bring what a log was given to the disk.",
                "kafka_log_flush_seconds"),
        graph("Flushes", "Flushes of logs per second.", "ops", {
            "{{instance}}": "rate(kafka_log_flush_seconds_count{BROKER}[RATE])"}),
        graph("Offline", "Log directories that failed, and unusable partitions.", "short", {
            "{{instance}}: directories": "kafka_log_offline_dirs{BROKER}",
            "{{instance}}: partitions": "kafka_server_offline_partitions{BROKER}"})),
    row("Compaction",
        graph("Dirty", "The dirty part of the dirtiest log that no thread compacts.", "percentunit", {
            "{{instance}}": "kafka_log_cleaner_max_dirty_ratio{BROKER}"}),
        graph("Last rounds", "The longest of the threads' last rounds, and the time since then.",
              "s", {
            "{{instance}}: round": "kafka_log_cleaner_max_clean_seconds{BROKER}",
            "{{instance}}: since a look": "kafka_log_cleaner_seconds_since_last_run{BROKER}",
            "{{instance}}: late": "kafka_log_cleaner_max_compaction_delay_seconds{BROKER}"}),
        graph("Kept", "What the last rounds kept, and how full their key buffers were.",
              "percentunit", {
            "{{instance}}: bytes kept": "kafka_log_cleaner_recopy_ratio{BROKER}",
            "{{instance}}: buffer": "kafka_log_cleaner_max_buffer_utilization_ratio{BROKER}"}),
        graph("Given up", "Partitions that cannot be compacted, and threads that panicked.",
              "short", {
            "{{instance}}: {{log_dir}}": "kafka_log_cleaner_uncleanable_partitions{BROKER}",
            "{{instance}}: dead threads": "kafka_log_cleaner_dead_threads{BROKER}"}, width=12),
        graph("Dirty bytes given up", "Dirty bytes of partitions that cannot be compacted.",
              "bytes", {
            "{{instance}}: {{log_dir}}": "kafka_log_cleaner_uncleanable_bytes{BROKER}"}, width=12)),
    row("Start and recovery",
        bars("Last start", "How long each stage of the last start took.", "s", {
            "{{instance}}: {{stage}}": "kafka_server_startup_seconds{BROKER}"}),
        graph("Logs opened", "Logs to open at the last start, and what remains.", "short", {
            "{{instance}}": "kafka_log_recovery_logs{BROKER}",
            "{{instance}}: remaining": "kafka_log_recovery_logs_remaining{BROKER}"}),
        graph("Bytes recovered", "Bytes read and checked at the last start.", "bytes", {
            "{{instance}}": "kafka_log_recovery_bytes_total{BROKER}"})),
)
# fmt: on


def layout(value, indent=0):
    """JSON in which whatever fits on a line stays on it."""
    flat = json.dumps(value)
    if len(flat) + indent <= 100 or not isinstance(value, (dict, list)):
        return flat
    inner = "\n" + " " * (indent + 2)
    if isinstance(value, dict):
        begin, end = "{}"
        lines = [f"{json.dumps(key)}: {layout(each, indent + 2)}" for key, each in value.items()]
    else:
        begin, end = "[]"
        lines = [layout(each, indent + 2) for each in value]
    return begin + inner + ("," + inner).join(lines) + "\n" + " " * indent + end


def files():
    """The texts of the dashboards, by file name."""
    made = (OVERVIEW, TOPICS, GROUPS, HOST)
    return {each["uid"].removeprefix("sordini-") + ".json": layout(each) + "\n" for each in made}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, text in files().items():
        (FOLDER / file).write_text(text)

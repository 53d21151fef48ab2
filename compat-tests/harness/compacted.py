"""Compares log directories after a round of compaction by two brokers."""

from .segments import batches, index_entries, producers, time_index_entries

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# What the compacted segments of all rounds must show. Without any, the test would show little.
FATES = {
    "aborted transactions remain",
    *(f"marker with horizon: {horizon}, with record: True" for horizon in (False, True)),
    "marker with horizon: False, with record: False",
    *(f"empty batch, of a producer: {producer}" for producer in (False, True)),
    *(f"tombstone in {codec}, stamped: False, whole: False" for codec in CODECS),
    *(f"tombstone in {codec}, stamped: True, whole: False" for codec in ("none", "zstd")),
    *(f"batch in {codec}, whole: {whole}" for codec in CODECS for whole in (False, True)),
    "first record is gone",
}


def logs(directory):
    return {int(log.stem): log for log in sorted(directory.glob("*.log"))}


def differences(theirs, ours, ends):
    """Returns how two data directories differ in what a round rewrites."""
    found = []
    for name, end in ends.items():
        pair = [logs(data / name) for data in (theirs, ours)]
        names = [
            {it.name for it in (data / name).iterdir() if it.suffix not in (".deleted", ".txnindex")}
            for data in (theirs, ours)
        ]
        if names[0] != names[1]:
            found.append(f"{name}: the files differ by {names[0] ^ names[1]}")
            continue
        for file in (theirs / name).glob("*.snapshot"):
            states = [producers((data / name / file.name).read_bytes()) for data in (theirs, ours)]
            if states[0] != states[1]:
                found.append(f"{name}/{file.name}: {states[0]} and {states[1]}")
        for base in sorted(pair[0].keys() & pair[1].keys()):
            if base < end:
                of_this = of_segment(pair[0][base], pair[1][base])
                found += [f"{name}/{base}: {what}" for what in of_this]
    return found


def of_segment(their_log, our_log):
    data = [log.read_bytes() for log in (their_log, our_log)]
    if data[0] != data[1]:
        theirs, ours = (batches(it) for it in data)
        yield from _of_batches(theirs, ours)
        yield from _of_indexes(their_log, our_log, theirs, ours)
    else:
        yield from _of_indexes(their_log, our_log)
    if their_log.stat().st_mtime_ns // 1_000_000 != our_log.stat().st_mtime_ns // 1_000_000:
        yield f"modified at {their_log.stat().st_mtime} and {our_log.stat().st_mtime}"
    txn = [log.with_suffix(".txnindex") for log in (their_log, our_log)]
    txn = [path.read_bytes() if path.exists() else b"" for path in txn]
    if txn[0] != txn[1]:
        yield f".txnindex is {txn[0].hex()} and {txn[1].hex()}"


def _of_batches(theirs, ours):
    expected, got = ([batch.base_offset for batch in it] for it in (theirs, ours))
    if expected != got:
        yield f"batches begin at {expected} and {got}"
    for batch, other in zip(theirs, ours):
        expected, got = batch.masked(), other.masked()
        for field in expected.keys() | got.keys():
            if expected.get(field) != got.get(field):
                values = f"{expected.get(field)} and {got.get(field)}"
                yield f"{field} of the batch at {batch.base_offset} is {values}"
        for side in (batch, other):
            if not side.is_crc_valid:
                yield f"the CRC of the batch at {side.base_offset} is wrong"


def _of_indexes(their_log, our_log, theirs=(), ours=()):
    """Entries are made every `index.interval.bytes`: they are equal if the sizes of batches are."""
    base = int(our_log.stem)
    for suffix, entries in ((".index", index_entries), (".timeindex", time_index_entries)):
        paths = [log.with_suffix(suffix) for log in (their_log, our_log)]
        pair = [entries(path.read_bytes(), base) for path in paths]
        if [it.size for it in theirs] == [it.size for it in ours]:
            if pair[0] != pair[1]:
                yield f"{suffix} is {pair[0]} and {pair[1]}"
        elif suffix == ".index":
            places = {(batch.last_offset, batch.position) for batch in ours}
            if not places >= set(pair[1]):
                yield f"{suffix} {pair[1]} does not lead to batches"


def changed_horizons(source, theirs, ours, ends):
    """Returns the delete horizons that a round should not have set: a horizon stays once it is set,
    and both brokers began their rounds within a minute."""
    known, expected, got = (_horizons(data, ends) for data in (source, theirs, ours))
    found = []
    for place, horizon in got.items():
        tolerance_ms = 0 if place in known else 60_000
        wanted = known.get(place, expected.get(place))
        if wanted is None or abs(horizon - wanted) > tolerance_ms:
            found.append(f"the horizon of the batch at {place} is {horizon}, not {wanted}")
    return found


def _horizons(data, ends):
    return {
        (log.parent.name, batch.base_offset): batch.base_timestamp
        for log in compacted(data, ends)
        for batch in batches(log.read_bytes())
        if batch.has_horizon
    }


def compacted(data, ends):
    """Returns the segments below the end of a round, but for those of the one large topic."""
    return [
        log
        for name, end in ends.items()
        for base, log in logs(data / name).items()
        if base < end and name != "many-0"
    ]


def fates(log):
    """Names what a segment shows of a round."""
    txn_index = log.with_suffix(".txnindex")
    if txn_index.exists() and txn_index.stat().st_size > 0:
        yield "aborted transactions remain"
    for batch in batches(log.read_bytes()):
        codec = CODECS[batch.attributes & 7]
        first = batch.records[0].offset if batch.records else None
        is_whole = batch.last_offset - batch.base_offset + 1 == batch.count
        is_stamped = batch.attributes & 8 != 0
        if batch.is_control:
            yield f"marker with horizon: {batch.has_horizon}, with record: {batch.count > 0}"
        elif batch.count == 0:
            yield f"empty batch, of a producer: {batch.producer_id >= 0}"
        elif batch.has_horizon:
            yield f"tombstone in {codec}, stamped: {is_stamped}, whole: {is_whole}"
        else:
            yield f"batch in {codec}, whole: {is_whole}"
        if first is not None and first != batch.base_offset:
            yield "first record is gone"

"""Requests of Kafka's protocol, sent byte by byte, and their answers, field by field.

`schema` encodes and decodes any message by the schemas inside Kafka's own client jar, `records`
builds and reads record batches, `wire` is a connection, `transcript` keeps what a case saw with
ids, times and addresses masked. The cases are in `cases/`; `golden/` holds what Apache Kafka
answered, and `differences.json` what Sordini deliberately answers in another way, and why.
"""

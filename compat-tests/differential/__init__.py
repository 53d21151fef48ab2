"""Differential tests: the same requests to Apache Kafka and to Sordini, compared field by field.

`schema` encodes and decodes any message by the schemas inside Kafka's client jar, `records` builds
and reads record batches, `wire` is a connection, `transcript` keeps the responses of a case with
ids, times and addresses masked. The cases are in `cases/`. `golden/` has the responses of Apache
Kafka, and `differences.json` has Sordini's accepted differences with their reasons.
"""

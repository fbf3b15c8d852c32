"""Connects the receivers of the command line to a pipeline: files, brokers, metrics, the live page."""

import argparse
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from uflow_edge.runtime.bundle.folder import MANIFEST, Bundle
from uflow_edge.runtime.bundle.uflow import UFlowManifest
from uflow_edge.runtime.errors import MissingDependency
from uflow_edge.runtime.infer.arguments import MQTT_PASSWORD_VARIABLE, TOKEN_VARIABLE
from uflow_edge.runtime.infer.choices import address
from uflow_edge.runtime.infer.threshold import LiveThreshold
from uflow_edge.runtime.line.triggers import SoftwareTrigger
from uflow_edge.runtime.storage.files import sha256
from uflow_edge.runtime.text import printable

if TYPE_CHECKING:
    from uflow_edge.runtime.line.capture import Feed
    from uflow_edge.runtime.line.pipeline import Pipeline
    from uflow_edge.runtime.sinks import Provenance, Sink
    from uflow_edge.runtime.sinks.json_lines import JsonLines, JsonLinesToStandardOutput
    from uflow_edge.runtime.sinks.metrics import Metrics
    from uflow_edge.runtime.sinks.modbus import ModbusSink
    from uflow_edge.runtime.sinks.overlays import OverlayFolder

logger = logging.getLogger(__name__)

_MEGABYTE = 1_000_000


def connect_receivers(
    arguments: argparse.Namespace,
    bundle: Bundle[UFlowManifest],
    pipeline: "Pipeline",
    feeds: "Sequence[Feed]",
    stack: ExitStack,
) -> None:
    """Make and connect every sink of the command line; ``stack`` closes them.

    With a camera, a receiver that is down must not block the inspection, so a bounded number of results waits for it.
    With files, no result may be lost, so a full disk ends the run.

    Raises:
        UsageError, BadInput, MissingDependency: a receiver cannot be opened.
    """
    from uflow_edge.runtime.sinks.buffered import BufferedSink
    from uflow_edge.runtime.sinks.strict import StrictSink

    live = any(feed.source.live for feed in feeds) or bool(arguments.watch)

    def connect(sink: "Sink") -> None:
        pipeline.connect(sink)
        stack.callback(sink.close)

    def connect_buffered(sink: "Sink") -> None:
        buffered = BufferedSink(sink, pipeline.fail)
        pipeline.connect(buffered)
        stack.callback(buffered.close, while_it_delivers=not live)

    provenance = {"bundle": bundle.folder.resolve().name, "bundle_sha256": sha256(bundle.folder / MANIFEST)}
    for sink in _files(arguments, bundle, provenance):
        if earlier := sink.earlier():
            logger.info(earlier)
        if live:
            connect_buffered(sink)
        else:
            connect(StrictSink(sink))
    if arguments.mqtt:
        connect_buffered(_mqtt(arguments, bundle, provenance))
    metrics = _metrics(arguments, pipeline)
    if metrics is not None:
        connect(metrics)
        if arguments.metrics:
            port = stack.enter_context(metrics.served(*address(arguments.metrics)))
            logger.info(f"metrics: http://{address(arguments.metrics)[0]}:{port}/metrics")
    if arguments.modbus:
        modbus = _modbus(arguments, pipeline)
        connect(modbus)
        logger.info(f"Modbus TCP: {address(arguments.modbus)[0]}:{modbus.port}")
    if arguments.serve:
        _serve(arguments, bundle, pipeline, feeds, metrics, provenance, stack)


def _files(
    arguments: argparse.Namespace, bundle: Bundle[UFlowManifest], provenance: "Provenance"
) -> "list[JsonLines | JsonLinesToStandardOutput | OverlayFolder]":
    from uflow_edge.runtime.sinks.json_lines import open_json_lines
    from uflow_edge.runtime.sinks.overlays import OverlayFolder

    found: list[JsonLines | JsonLinesToStandardOutput | OverlayFolder] = []
    if arguments.jsonl:
        size, files = arguments.jsonl_size * _MEGABYTE, arguments.jsonl_files
        found.append(open_json_lines(str(arguments.jsonl), max_bytes=size, files=files, provenance=provenance))
    if arguments.save_dir:
        folder = OverlayFolder(
            arguments.save_dir,
            bundle.manifest.channels,
            anomalies_only=arguments.save == "anomalies",
            picture_format=arguments.save_format,
            heat_map=arguments.heat_map or "nfa",
            quota=None if arguments.save_quota is None else arguments.save_quota * _MEGABYTE,
            provenance=provenance,
        )
        found.append(folder)
    return found


def _mqtt(arguments: argparse.Namespace, bundle: Bundle[UFlowManifest], provenance: "Provenance") -> "Sink":
    from uflow_edge.runtime.sinks.mqtt import Broker, MqttSink

    channels = bundle.manifest.channels if arguments.mqtt_pictures else None
    broker = Broker.from_url(arguments.mqtt)
    broker = replace(
        broker,
        password=broker.password or os.environ.get(MQTT_PASSWORD_VARIABLE),
        authorities=arguments.mqtt_ca,
        certificate=arguments.mqtt_cert,
        key=arguments.mqtt_key,
    )
    return MqttSink(
        broker,
        prefix=arguments.mqtt_topic,
        picture_channels=channels,
        heat_map=arguments.heat_map or "nfa",
        provenance=provenance,
    )


def _metrics(arguments: argparse.Namespace, pipeline: "Pipeline") -> "Metrics | None":
    if not (arguments.metrics or arguments.serve):
        return None
    from uflow_edge.runtime.sinks.metrics import Metrics

    try:
        return Metrics(pipeline.tally)
    except MissingDependency:
        if arguments.metrics:
            raise
        return None  # the page works without metrics


def _modbus(arguments: argparse.Namespace, pipeline: "Pipeline") -> "ModbusSink":
    from uflow_edge.runtime.sinks.modbus import ModbusSink

    host, port = address(arguments.modbus)
    return ModbusSink(pipeline.tally, host=host, port=port)


def _serve(
    arguments: argparse.Namespace,
    bundle: Bundle[UFlowManifest],
    pipeline: "Pipeline",
    feeds: "Sequence[Feed]",
    metrics: "Metrics | None",
    provenance: "Provenance",
    stack: ExitStack,
) -> None:
    from uflow_edge.runtime.page import Controls, LivePage, serve

    threshold = LiveThreshold(pipeline.inspector, bundle)
    triggers = [feed.trigger for feed in feeds if isinstance(feed.trigger, SoftwareTrigger)]

    def fire() -> None:
        for trigger in triggers:
            trigger.fire()

    controls = Controls(
        tally=pipeline.tally,
        threshold=threshold.value,
        saved_threshold=threshold.saved,
        set_threshold=threshold.set,
        # The bundle must not get a threshold for the scores of another rule.
        save_threshold=threshold.save if os.access(bundle.folder, os.W_OK) and not arguments.rule else None,
        promise=threshold.promise,
        fire_trigger=fire if triggers else None,
        state=pipeline.states,
        exposition=None if metrics is None else lambda: metrics.exposition()[0],
        bundle=printable(provenance["bundle"]),
        digest=provenance["bundle_sha256"],
        engine=pipeline.inspector.engine.name,
    )
    may_be_idle = arguments.trigger != "free" or not all(feed.source.live for feed in feeds)
    page = LivePage(
        bundle.manifest.channels,
        controls,
        cameras=[feed.source.name for feed in feeds],
        silence_limit_s=None if may_be_idle else 10.0,
    )
    host, port = address(arguments.serve)
    server = serve(page, host=host, port=port, token=arguments.token or os.environ.get(TOKEN_VARIABLE))
    pipeline.connect(page)
    stack.callback(page.close)
    logger.info("live page: %(url)s", {"url": server.url})

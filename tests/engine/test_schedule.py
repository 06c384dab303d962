"""The order of nodes, and what makes two results the same."""

from common.engine.schedule import Order, signatures


def order(graph, cached=()):
    outputs = [n for n in graph if graph[n]["class_type"].startswith("Save")]
    return list(
        Order(graph, outputs, outputs.__contains__, frozenset(cached).__contains__)
    )


def test_order_as_recorded(workflow):
    """Nodes run in the order that ComfyUI ran them in."""
    expected = ["39", "55", "38", "7", "6", "37", "49", "48", "3", "8", "57", "58"]

    assert order(workflow()) == expected


def test_cached_nodes_are_not_staged(workflow):
    """Only what leads from the cache to an output runs; a cached output is shown."""
    assert order(workflow(), ["57"]) == ["58"]
    assert order(workflow(), ["57", "58"]) == ["58"]


def test_signatures_follow_the_links(workflow):
    """A changed input changes its node and all below it, and nothing else."""
    before = signatures(workflow(), lambda _: "")
    after = signatures(workflow(changes={"49": {"strength_model": 0.5}}), lambda _: "")

    changed = {node for node in before if before[node] != after[node]}
    assert changed == {"49", "48", "3", "8", "57", "58"}


def test_a_stamp_is_part_of_the_signature(workflow):
    """What a node reads counts as its input."""
    before = signatures(workflow(), lambda _: "")
    after = signatures(workflow(), lambda node: "new" if node == "57" else "")

    assert {node for node in before if before[node] != after[node]} == {"57", "58"}


def test_broken_nodes_have_no_signature(workflow):
    """A node that links nowhere is left out, and so is what needs it."""
    graph = workflow(changes={"57": {"images": ["999", 0]}})

    signed = signatures(graph, lambda _: "")

    assert set(graph) - set(signed) == {"57", "58"}

"""
The fields of resources that Kubernetes itself does not know, as strict JSON schemas.

Written from the documented fields: keda.sh/docs, ScaledObject specification and the
Prometheus scaler; prometheus-operator.dev, API reference of PodMonitor. Only those that
a sensible file of ours may hold, so that a misspelt one is refused.
"""


def _object(required=(), **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


STRING = {"type": "string", "minLength": 1}
NAME = {"type": "string", "pattern": r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"}
DURATION = {"type": "string", "pattern": r"^[0-9]+(ms|s|m|h)$"}
NUMBER_AS_TEXT = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = _object(["name"], name=NAME, namespace=NAME, labels=LABELS)


def _count(least=0, most=None):
    found = {"type": "integer", "minimum": least}
    return found if most is None else {**found, "maximum": most}


_RULES = _object(
    stabilizationWindowSeconds=_count(0, 3600),
    selectPolicy={"enum": ["Max", "Min", "Disabled"]},
    policies={
        "type": "array",
        "minItems": 1,
        "items": _object(
            ["type", "value", "periodSeconds"],
            type={"enum": ["Pods", "Percent"]},
            value=_count(1),
            periodSeconds=_count(1, 1800),
        ),
    },
)

SCALED_OBJECT = _object(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "keda.sh/v1alpha1"},
    kind={"const": "ScaledObject"},
    metadata=METADATA,
    spec=_object(
        ["scaleTargetRef", "triggers"],
        scaleTargetRef=_object(
            ["name"],
            apiVersion=STRING,
            kind=STRING,
            name=NAME,
            envSourceContainerName=NAME,
        ),
        pollingInterval=_count(1),
        cooldownPeriod=_count(0),
        minReplicaCount=_count(0),
        maxReplicaCount=_count(1),
        advanced=_object(
            restoreToOriginalReplicaCount={"type": "boolean"},
            horizontalPodAutoscalerConfig=_object(
                name=NAME, behavior=_object(scaleUp=_RULES, scaleDown=_RULES)
            ),
        ),
        triggers={
            "type": "array",
            "minItems": 1,
            "items": _object(
                ["type", "metadata"],
                type={"const": "prometheus"},
                name=STRING,
                metricType={"enum": ["AverageValue", "Value"]},
                authenticationRef=_object(["name"], name=NAME),
                metadata=_object(
                    ["serverAddress", "query", "threshold"],
                    serverAddress={"type": "string", "pattern": "^https?://"},
                    query=STRING,
                    threshold=NUMBER_AS_TEXT,
                    activationThreshold=NUMBER_AS_TEXT,
                    namespace=STRING,
                    customHeaders=STRING,
                    ignoreNullValues={"enum": ["true", "false"]},
                    unsafeSsl={"enum": ["true", "false"]},
                    authModes=STRING,
                ),
            ),
        },
    ),
)

POD_MONITOR = _object(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "monitoring.coreos.com/v1"},
    kind={"const": "PodMonitor"},
    metadata=METADATA,
    spec=_object(
        ["selector", "podMetricsEndpoints"],
        selector=_object(matchLabels=LABELS),
        podTargetLabels={"type": "array", "items": STRING},
        podMetricsEndpoints={
            "type": "array",
            "minItems": 1,
            "items": _object(
                ["port"],
                port=STRING,
                path={"type": "string", "pattern": "^/"},
                interval=DURATION,
                scrapeTimeout=DURATION,
                authorization=_object(
                    ["credentials"],
                    type={"const": "Bearer"},
                    credentials=_object(["name", "key"], name=NAME, key=STRING),
                ),
            ),
        },
    ),
)

SCHEMAS = {"ScaledObject": SCALED_OBJECT, "PodMonitor": POD_MONITOR}

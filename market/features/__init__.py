"""Features of the past, `FEATURES` by name, and `build_features`, which turns texts into arrays."""

from market.features.build import ENGINES, FeatureSet, build_features
from market.features.registry import DEFAULT_FEATURES, FEATURES, Feature, listing
from market.features.specification import (
    Specification,
    expand_features,
    parse_feature,
    read_feature_set,
)
from market.features.user import LookAheadError
from market.features.warmup import rows_needed, warmup_rows

__all__ = [
    "DEFAULT_FEATURES",
    "ENGINES",
    "FEATURES",
    "Feature",
    "FeatureSet",
    "LookAheadError",
    "Specification",
    "build_features",
    "expand_features",
    "listing",
    "parse_feature",
    "read_feature_set",
    "rows_needed",
    "warmup_rows",
]

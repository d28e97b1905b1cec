"""Features of the past, `FEATURES` by name, and `build_features`, which turns texts into arrays."""

from market.features.build import ENGINES, FeatureSet, build_features, warmup_rows
from market.features.registry import DEFAULT_FEATURES, FEATURES, Feature, listing
from market.features.specification import Specification, parse_feature, read_feature_set
from market.features.user import LookAheadError

__all__ = [
    "DEFAULT_FEATURES",
    "ENGINES",
    "FEATURES",
    "Feature",
    "FeatureSet",
    "LookAheadError",
    "Specification",
    "build_features",
    "listing",
    "parse_feature",
    "read_feature_set",
    "warmup_rows",
]

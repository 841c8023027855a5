"""Any classifier or segmenter of MONAI by its name, built for a task and made ready for per-record clipping."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import nn

from hbdp_fed.errors import SettingError
from hbdp_fed.models.dp_ready import DpReady, make_dp_ready
from hbdp_fed.models.monai_defaults import defaults_for
from hbdp_fed.models.spatial import check_spatial_dims

_NET, _ARGS = "model.net", "model.args"

_CHANNELS = ("in_channels", "n_input_channels", "num_channels")
_CLASSES = ("out_channels", "num_classes", "out_classes", "classes")
_DIMS = ("spatial_dims",)
_SIZE = ("img_size", "image_size")
_SHAPE = ("in_shape",)

_LARGEST_NUMBER = 10_000
_LONGEST_LIST = 64


def converted_monai_net(
    net: str,
    *,
    in_channels: int,
    num_classes: int,
    spatial_dims: int,
    image_size: Sequence[int],
    args: Mapping[str, Any] | None = None,
) -> DpReady:
    """Build ``monai.networks.nets.<net>`` for a task and convert it (:func:`hbdp_fed.models.dp_ready.make_dp_ready`).

    MONAI's constructors call the same things by different names (``in_channels`` or ``n_input_channels``,
    ``out_channels`` or ``num_classes``): whichever a net has is filled in. Where a net asks for what follows from the
    image (DynUNet's kernels and strides), it is worked out unless ``args`` says it. Nothing is ever downloaded.

    Args:
        net: The name of a class or function in ``monai.networks.nets``, as it spells itself.
        in_channels: Channels of the images, at least 1.
        num_classes: Number of logits, a record's or a pixel's.
        spatial_dims: 2 for images, 3 for volumes.
        image_size: The sides, (H, W) or (D, H, W).
        args: The net's own keywords, as plain JSON values.

    Raises:
        SettingError: if there is no such net, it is no classifier or segmenter of images, it has no such keyword, or
            its constructor refuses what it is given.
    """
    try:
        check_spatial_dims(spatial_dims)
    except ValueError as error:
        raise SettingError(_NET, str(error)) from error
    builder, accepted = _found(net)
    own = dict(args or {})
    filled = _filled_in(accepted, in_channels, num_classes, spatial_dims, image_size)
    _check_args(net, own, accepted, filled)
    defaults = {name: value for name, value in defaults_for(net, image_size).items() if name not in own}
    try:
        built = builder(**{**defaults, **own, **filled})
    except Exception as error:  # what a constructor of a library does with values that it does not expect is its own
        raise SettingError(_ARGS, f"{net} cannot be built: {_first_line(error)}") from error
    return make_dp_ready(built)


def build_monai_net(
    net: str,
    in_channels: int,
    num_classes: int,
    spatial_dims: int,
    image_size: Sequence[int],
    args: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The module alone of :func:`converted_monai_net`."""
    return converted_monai_net(
        net,
        in_channels=in_channels,
        num_classes=num_classes,
        spatial_dims=spatial_dims,
        image_size=image_size,
        args=args,
    ).module


def monai_nets() -> tuple[str, ...]:
    """The names of MONAI's nets that take an image's channels and answer with so many classes, in order.

    Not all of them are classifiers or segmenters for that; a net with other answers is refused when it is tried.
    """
    return tuple(sorted(name for name in vars(_monai()) if _is_candidate(name)))


def _monai() -> ModuleType:
    # Here and not above: MONAI takes one to three seconds to import, which every start with another model would pay.
    from monai.networks import nets

    return nets


def _is_candidate(name: str) -> bool:
    builder = getattr(_monai(), name)
    # MONAI gives its classes further spellings (Densenet121): one name a net, or two charters of one net would differ.
    if getattr(builder, "__name__", "") != name or not _is_builder(builder):
        return False
    accepted = _parameters(builder)
    shaped = any(alias in accepted for alias in (*_CHANNELS, *_SHAPE))
    return shaped and any(alias in accepted for alias in _CLASSES)


def _is_builder(builder: Any) -> bool:
    if inspect.isclass(builder):
        return issubclass(builder, nn.Module)
    returned = _returned(builder) if inspect.isfunction(builder) else None
    return inspect.isclass(returned) and issubclass(returned, nn.Module)


def _returned(function: Callable[..., Any]) -> Any:
    return typing.get_type_hints(function).get("return")


def _found(net: str) -> tuple[Callable[..., nn.Module], Mapping[str, inspect.Parameter]]:
    """A net's constructor and the keywords that it takes."""
    known = monai_nets()
    if net not in known:
        raise SettingError(_NET, f"MONAI has no classifier or segmenter '{net}'; {_nearest(net, known)}")
    builder = getattr(_monai(), net)
    return builder, _parameters(builder)


def _parameters(builder: Callable[..., nn.Module]) -> dict[str, inspect.Parameter]:
    """The keywords that a constructor takes, those included that it hands on to the class that it is made of."""
    chain: list[Callable[..., Any]] = [builder]
    if inspect.isclass(builder):
        chain = [kind for kind in inspect.getmro(builder) if issubclass(kind, nn.Module) and kind is not nn.Module]
    elif inspect.isclass(_returned(builder)):
        chain.append(_returned(builder))
    found: dict[str, inspect.Parameter] = {}
    for link in chain:
        own = inspect.signature(link).parameters.values()
        for parameter in own:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own):
            break
    return found


def _filled_in(
    accepted: Iterable[str], in_channels: int, num_classes: int, spatial_dims: int, image_size: Sequence[int]
) -> dict[str, Any]:
    """What the task decides, by the names that this net has for it."""
    meanings: Sequence[tuple[Sequence[str], Any]] = (
        (_CHANNELS, in_channels),
        (_CLASSES, num_classes),
        (_DIMS, spatial_dims),
        (_SIZE, tuple(image_size)),
        (_SHAPE, (in_channels, *image_size)),
    )
    names = set(accepted)
    filled = {alias: value for aliases, value in meanings for alias in aliases if alias in names}
    # Every one of MONAI's ways to start from somebody's weights is called so, and some are on unless switched off.
    return filled | {name: False if name == "pretrained" else None for name in names if name.startswith("pretrained")}


def _check_args(net: str, own: Mapping[str, Any], accepted: Iterable[str], filled: Iterable[str]) -> None:
    free = sorted(set(accepted) - set(filled))
    for name, value in own.items():
        if name.startswith("pretrained"):
            raise SettingError(_ARGS, f"{name} is refused: nothing is downloaded; model.weights starts from a file")
        if name in filled:
            raise SettingError(_ARGS, f"{name} is not yours to set: it follows from the data")
        if name not in free:
            raise SettingError(_ARGS, f"{net} has no keyword '{name}'; {_nearest(name, free)}")
        _check_value(name, value)


def _check_value(name: str, value: Any) -> None:
    """Refuse what nobody builds a net of: a hospital builds what a server names, and must not be kept busy by it."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        if len(value) > _LONGEST_LIST:
            raise SettingError(_ARGS, f"{name} may have at most {_LONGEST_LIST} entries, got {len(value)}")
        for part in value:
            _check_value(name, part)
    elif isinstance(value, int | float) and not abs(value) <= _LARGEST_NUMBER:
        raise SettingError(_ARGS, f"{name} must lie within {_LARGEST_NUMBER} of zero, got {value}")


def _nearest(name: str, known: Sequence[str]) -> str:
    """``did you mean 'x'?``, or all that is known."""
    by_lower = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"did you mean '{by_lower[near[0]]}'?" if near else f"choose one of: {', '.join(known)}"


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__

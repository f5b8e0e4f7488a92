"""The least value of linear rows over a box cut by a ball or by linear inequalities: a bound for any choice of a split.

A ball: write the coefficients as a = b + c. Then a . d >= -radius ||b||_dual + min over the box of c . d, for every
split; the best one clips a (l_1) or is found by bisection (l_2). Inequalities G x <= h: for any multipliers mu >= 0,
a . x >= (a + mu G) . x - mu . h. So a rough search costs tightness, never soundness.
"""

from __future__ import annotations

import numpy as np

from mipverify.proof.rounding import SLACK, floor, gamma
from mipverify.specification.regions import Ball, Region

LEVEL_STEPS = 6
SWEEPS = 3  # over the multipliers of linear inequalities


def region_minimum(
    region: Region, a: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows a (R, n) over boxes lower, upper (R or 1, n) cut by the region.

    Returns a lower bound (R,) of a . x, a bound (R,) of the rounding errors in it, not yet subtracted, and points
    (R, n) near which the minimum lies.
    """
    dtype = a.dtype
    a, lower, upper = (np.asarray(v, np.float64) for v in (a, lower, upper))
    matrix, offset = region.rows
    size = np.maximum(np.abs(lower), np.abs(upper))
    constant, error = np.zeros(len(a)), np.zeros(len(a))
    if len(matrix):
        mu = _multipliers(a, matrix, offset, lower, upper)
        constant = -(mu @ offset)
        a = a + mu @ matrix
        terms = gamma(2 * len(matrix) + 8, a)
        error = terms * (((np.abs(a) + mu @ np.abs(matrix)) * size).sum(axis=1) + mu @ np.abs(offset))
    if region.ball is None:
        value = np.maximum(a, 0) * lower + np.minimum(a, 0) * upper
        total, point = value.sum(axis=1), np.where(a > 0, lower, upper)
        magnitude = np.abs(value).sum(axis=1)
    else:
        total, point, magnitude = _in_ball(region.ball, a, lower, upper)
    underflow = floor(a) * (1 + size.sum(axis=1) + (0.0 if region.ball is None else _reach(region.ball)))
    error = error + gamma(6 * a.shape[1] + 40, a) * (magnitude + np.abs(constant)) + underflow
    if dtype == np.float32:  # a search, where this precision is all that is asked for
        return (total + constant).astype(dtype), error.astype(dtype), point.astype(dtype)
    return total + constant, SLACK * error, point


def _in_ball(
    ball: Ball, a: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bound, minimizer and sum of magnitudes for rows over box and ball."""
    radius = float(np.nextafter(float(ball.radius), np.inf))
    down, up = lower - ball.center, upper - ball.center
    room = np.where(a > 0, -down, up)  # how far each coordinate may go the way that pays
    scaled = np.abs(a) * ball.scale
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(ball.scale > 0, room / ball.scale, 0.0)
    inner = np.where((down <= 0) & (up >= 0), scaled, 0.0)  # the ball says nothing about a box that misses its center
    steps = np.maximum(room, 0.0)
    if ball.norm == "l1":
        step, level = _l1_step(inner, steps, radius)
        inside = np.minimum(inner, level[:, None])
        dual = inside.max(axis=1, initial=0.0)
    else:
        exponent = _exponent(inner)
        part = np.ldexp(inner, -exponent)
        with np.errstate(over="ignore", invalid="ignore"):
            level = _l2_level(part, steps, radius)[:, None]
            step = np.minimum(part / np.maximum(level, 1e-300), steps)
            share = level * step
        # Any share will do; one that is no number is replaced by that of the box.
        inside = np.minimum(np.ldexp(np.where(np.isfinite(share), share, 0.0), exponent), inner)
        dual = _norm(inside)
    gain = radius * dual + ((scaled - inside) * room).sum(axis=1)
    middle = a @ ball.center
    magnitude = np.abs(a) @ np.abs(ball.center) + radius * dual + (scaled * np.abs(room)).sum(axis=1)
    point = ball.center - np.sign(a) * step * ball.scale
    return middle - gain, np.clip(point, lower, upper), magnitude


def _exponent(values: np.ndarray) -> np.ndarray:
    """The power of two (R, 1) just above the largest of nonnegative values (R, n)."""
    return np.asarray(np.frexp(values.max(axis=1, initial=0.0))[1][:, None])


def _norm(values: np.ndarray) -> np.ndarray:
    """The l_2 norm (R,) of nonnegative values (R, n), in parts of a power of two: no square that matters underflows."""
    exponent = _exponent(values)
    part = np.ldexp(values, -exponent)
    return np.asarray(np.ldexp(np.sqrt((part * part).sum(axis=1)), exponent[:, 0]))


def _reach(ball: Ball) -> float:
    """Above what an error of 1 in every coefficient may change over the ball."""
    return float(ball.radius) * (1 + float(ball.scale.sum())) + float(np.abs(ball.center).sum())


def _l1_step(scaled: np.ndarray, room: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The steps (R, n) that spend the radius where it pays most, and what the last bit of it is worth (R,)."""
    order = np.argsort(-scaled, axis=1)
    rooms = np.take_along_axis(room, order, axis=1)
    spent = np.cumsum(rooms, axis=1)
    step = np.zeros_like(scaled)
    np.put_along_axis(step, order, np.clip(radius - (spent - rooms), 0, rooms), axis=1)
    last = (spent >= radius).argmax(axis=1)
    worth = np.take_along_axis(scaled, order, axis=1)[np.arange(len(scaled)), last]
    return step, np.where(spent[:, -1] >= radius, worth, 0.0)


def _l2_level(scaled: np.ndarray, room: np.ndarray, radius: float) -> np.ndarray:
    """The level (R,) at which the step min(scaled / level, room) has norm `radius`, from above; 0 where none does.

    Coordinates that meet their room leave the rest of the radius to the others: their set grows step by step.
    """
    level = np.sqrt((scaled * scaled).sum(axis=1)) / max(radius, 1e-300)
    for _ in range(LEVEL_STEPS):
        met = scaled >= level[:, None] * room
        rest = radius * radius - np.where(met, room * room, 0.0).sum(axis=1)
        free = np.where(met, 0.0, scaled * scaled).sum(axis=1)
        level = np.where(rest > 0, np.sqrt(free / np.where(rest > 0, rest, 1.0)), 0.0)
    return level


def _multipliers(
    a: np.ndarray, matrix: np.ndarray, offset: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Multipliers (R, m) >= 0 by coordinate ascent: each to where its row is just met at the box's minimizer."""
    mu = np.zeros((len(a), len(matrix)))
    for _ in range(SWEEPS if len(matrix) > 1 else 1):
        for r, row in enumerate(matrix):
            rest = a + mu @ matrix - mu[:, [r]] * row
            mu[:, r] = _multiplier(rest, row, float(offset[r]), lower, upper)
    return mu


def _multiplier(a: np.ndarray, row: np.ndarray, offset: float, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The multiplier (R,) of one row that raises the bound most: its derivative row . x - offset falls through 0.

    The minimizer's coordinates switch sides one by one, each at its own multiplier, and lower the derivative by what
    their switch changes in row . x.
    """
    used = np.flatnonzero(row)
    if not len(used):
        return np.zeros(len(a))
    own, slopes = row[used], a[:, used]
    low, high = (np.broadcast_to(side[:, used], slopes.shape) for side in (lower, upper))
    with np.errstate(over="ignore"):
        switch = -slopes / own
    ahead = switch > 0
    derivative = (np.where(np.where(switch == 0, own, slopes) > 0, low, high) * own).sum(axis=1) - offset
    drop = np.where(ahead, np.abs(own) * (high - low), 0.0)
    order = np.argsort(np.where(ahead, switch, np.inf), axis=1)
    left = derivative[:, None] - np.cumsum(np.take_along_axis(drop, order, axis=1), axis=1)
    crossing = np.where((left <= 0).any(axis=1), (left <= 0).argmax(axis=1), np.maximum(ahead.sum(axis=1) - 1, 0))
    found = np.take_along_axis(switch, order, axis=1)[np.arange(len(a)), crossing]
    return np.where((derivative > 0) & (found > 0) & np.isfinite(found), found, 0.0)

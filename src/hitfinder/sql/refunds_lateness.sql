-- refunds_lateness: how many steps after its day began a report with money in it was known, and how many steps it had.
-- A report that was revised counts by its first version.
-- Grain: delay, room.
-- Reads: reports, refund_grid (origin, step_seconds), scope.
with
first_known as (
    select
        sku_id,
        period_start,
        channel,
        creative_id,
        min(known_at) as known_at
    from reports
    where revenue > 0 or refunds > 0
    group by sku_id, period_start, channel, creative_id
),

placed as (
    select
        -- The start of the day that the report belongs to.
        epoch(refund_grid.origin) + refund_grid.step_seconds * floor(
            (epoch(first_known.period_start) - epoch(refund_grid.origin)) / refund_grid.step_seconds
        ) as began,
        epoch(first_known.known_at) as known_second,
        epoch(scope.as_of) as now_second,
        refund_grid.step_seconds
    from first_known
    cross join refund_grid
    cross join scope
),

counted as (
    select
        cast(ceil((known_second - began) / step_seconds) as bigint) as delay,
        cast(floor((now_second - began) / step_seconds) as bigint) as room
    from placed
),

summed as (
    select
        delay,
        room,
        count(*) as reports
    from counted
    group by delay, room
)

select * from summed

-- visible: what could be seen of each SKU at each moment, one row per report.
-- Grain: as_of, sku_id, period_start, channel, creative_id.
-- Reads: moments (as_of, sku_id), catalog, reports, scope.
with
timed as (
    select
        moments.as_of,
        moments.sku_id,
        catalog.launched_at,
        -- Days on trial; a moment before the launch is day 0.
        greatest(epoch(moments.as_of) - epoch(catalog.launched_at), 0) / 86400.0 as days,
        scope.period_seconds / 86400.0 as period_days
    from moments
    inner join catalog on moments.sku_id = catalog.sku_id
    cross join scope
),

seen as (
    select
        timed.as_of,
        timed.sku_id,
        timed.days,
        timed.period_days,
        reports.period_start,
        reports.channel,
        reports.creative_id,
        reports.impressions,
        reports.visitors,
        reports.clicks,
        reports.favorites,
        reports.carts,
        reports.orders,
        reports.units,
        reports.revenue,
        reports.refunds,
        reports.spend,
        (epoch(reports.period_start) - epoch(timed.launched_at)) / 86400.0 as since_launch
    from timed
    inner join reports on timed.sku_id = reports.sku_id
    where
        reports.known_at <= timed.as_of
        and reports.period_start < timed.as_of
        and (reports.superseded_at is null or reports.superseded_at > timed.as_of)
),

halved as (
    select
        seen.*,
        -- The second half of what has been seen so far shows where the SKU is going.
        since_launch >= days / 2 as is_late,
        -- A SKU that counts as launched when it first sells has sold on that day by definition.
        since_launch >= period_days as is_after_launch
    from seen
)

select * from halved

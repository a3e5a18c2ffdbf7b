-- visible: what could be seen of each SKU at each moment, one row per report.
-- A page that had sold out by then is no exposure: its impressions, clicks and the like don't count. Refunds of what
-- was sold before do.
-- Grain: as_of, sku_id, period_start, channel, creative_id.
-- Reads: moments (as_of, sku_id), catalog, reports, stock_outs, scope.
with
timed as (
    select
        moments.as_of,
        moments.sku_id,
        catalog.launched_at,
        -- Days on trial and in stock; a moment before the launch is day 0.
        greatest(least(epoch(moments.as_of), stock_outs.sold_out_second) - epoch(catalog.launched_at), 0) / 86400.0
        as days,
        stock_outs.sold_out_second,
        scope.period_seconds / 86400.0 as period_days
    from moments
    inner join catalog on moments.sku_id = catalog.sku_id
    left join stock_outs on moments.as_of = stock_outs.as_of and moments.sku_id = stock_outs.sku_id
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
        (epoch(reports.period_start) - epoch(timed.launched_at)) / 86400.0 as since_launch,
        coalesce(epoch(reports.period_start) < timed.sold_out_second, true) as is_in_stock
    from timed
    inner join reports on timed.sku_id = reports.sku_id
    where
        reports.known_at <= timed.as_of
        and reports.period_start < timed.as_of
        and (reports.superseded_at is null or reports.superseded_at > timed.as_of)
),

halved as (
    select
        as_of,
        sku_id,
        days,
        period_days,
        period_start,
        channel,
        creative_id,
        case when is_in_stock then impressions end as impressions,
        case when is_in_stock then visitors end as visitors,
        case when is_in_stock then clicks end as clicks,
        case when is_in_stock then favorites end as favorites,
        case when is_in_stock then carts end as carts,
        orders,
        units,
        revenue,
        refunds,
        spend,
        since_launch,
        is_in_stock,
        -- The second half of what has been seen so far shows where the SKU is going.
        since_launch >= days / 2 as is_late,
        -- A SKU that counts as launched when it first sells has sold on that day by definition.
        since_launch >= period_days as is_after_launch
    from seen
)

select * from halved

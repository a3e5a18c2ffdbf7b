-- totals: each SKU's counts so far at each moment. A count that was not measured is NULL, not 0.
-- Grain: as_of, sku_id.
-- Reads: moments, catalog, visible.
with
summed as (
    select
        as_of,
        sku_id,
        sum(impressions) as impressions,
        sum(visitors) as visitors,
        sum(clicks) as clicks,
        sum(favorites) as favorites,
        sum(carts) as carts,
        sum(orders) as orders,
        sum(units) as units,
        cast(sum(revenue) as double) as revenue,
        cast(sum(refunds) as double) as refunds,
        cast(sum(spend) as double) as spend,
        count(distinct period_start) as active_periods,
        count(distinct period_start) filter (where is_after_launch) as again_periods,
        count(distinct channel) as channels,
        count(distinct creative_id) as creatives,
        max(since_launch) as last_seen_days
    from visible
    group by as_of, sku_id
),

aged as (
    select
        moments.as_of,
        moments.sku_id,
        catalog.batch_id,
        catalog.style_id,
        catalog.category,
        catalog.price,
        catalog.launched_at,
        greatest(epoch(moments.as_of) - epoch(catalog.launched_at), 0) / 86400.0 as days
    from moments
    inner join catalog on moments.sku_id = catalog.sku_id
),

joined as (
    select
        aged.*,
        summed.impressions,
        summed.visitors,
        summed.clicks,
        summed.favorites,
        summed.carts,
        summed.orders,
        summed.units,
        summed.revenue,
        summed.refunds,
        summed.spend,
        summed.last_seen_days,
        coalesce(summed.active_periods, 0) as active_periods,
        coalesce(summed.again_periods, 0) as again_periods,
        coalesce(summed.channels, 0) as channels,
        coalesce(summed.creatives, 0) as creatives
    from aged
    left join summed on aged.as_of = summed.as_of and aged.sku_id = summed.sku_id
)

select * from joined

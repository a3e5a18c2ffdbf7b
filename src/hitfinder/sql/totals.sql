-- totals: each SKU's counts so far at each moment. A count that was not measured is NULL, not 0.
-- `days` are those on trial and in stock: what a rate per day is counted on. `age_days` go on when it has sold out.
-- Grain: as_of, sku_id.
-- Reads: moments, catalog, visible, stock_outs.
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
        count(distinct period_start) filter (where is_in_stock) as active_periods,
        count(distinct period_start) filter (where is_in_stock and is_after_launch) as again_periods,
        count(distinct channel) filter (where is_in_stock) as channels,
        count(distinct creative_id) filter (where is_in_stock) as creatives,
        max(since_launch) filter (where is_in_stock) as last_seen_days
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
        greatest(least(epoch(moments.as_of), stock_outs.sold_out_second) - epoch(catalog.launched_at), 0) / 86400.0
        as days,
        greatest(epoch(moments.as_of) - epoch(catalog.launched_at), 0) / 86400.0 as age_days,
        stock_outs.sold_out_second is not null as is_sold_out
    from moments
    inner join catalog on moments.sku_id = catalog.sku_id
    left join stock_outs on moments.as_of = stock_outs.as_of and moments.sku_id = stock_outs.sku_id
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

-- totals: each SKU's counts so far at each moment. A count that was not measured is NULL, not 0.
-- `days` are those on trial and in stock: what a rate per day is counted on. `age_days` go on when it has sold out.
-- Grain: as_of, sku_id.
-- Reads: moments, catalog, visible, stock_outs.
with
-- A period with reports from several channels is one period.
by_period as (
    select
        as_of,
        sku_id,
        period_start,
        since_launch,
        is_in_stock,
        is_after_launch,
        sum(impressions) as impressions,
        sum(visitors) as visitors,
        sum(clicks) as clicks,
        sum(favorites) as favorites,
        sum(carts) as carts,
        sum(orders) as orders,
        sum(units) as units,
        sum(revenue) as revenue,
        sum(refunds) as refunds,
        sum(spend) as spend
    from visible
    group by as_of, sku_id, period_start, since_launch, is_in_stock, is_after_launch
),

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
        count(*) filter (where is_in_stock) as active_periods,
        count(*) filter (where is_in_stock and is_after_launch) as again_periods,
        max(since_launch) filter (where is_in_stock) as last_seen_days
    from by_period
    group by as_of, sku_id
),

-- Channels and creatives are grouped before they are counted, in one go: of several `count(distinct ...)` the engine
-- makes as many joins, and to plan those takes longer than to count a small list.
names as (
    select
        as_of,
        sku_id,
        'channel' as kind,
        channel as name
    from visible
    where is_in_stock and channel is not null
    union all
    select
        as_of,
        sku_id,
        'creative' as kind,
        creative_id as name
    from visible
    where is_in_stock and creative_id is not null
),

names_once as (
    select
        as_of,
        sku_id,
        kind,
        name
    from names
    group by as_of, sku_id, kind, name
),

breadth as (
    select
        as_of,
        sku_id,
        count(*) filter (where kind = 'channel') as channels,
        count(*) filter (where kind = 'creative') as creatives
    from names_once
    group by as_of, sku_id
),

joined as (
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
        stock_outs.sold_out_second is not null as is_sold_out,
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
        coalesce(breadth.channels, 0) as channels,
        coalesce(breadth.creatives, 0) as creatives
    from moments
    inner join catalog on moments.sku_id = catalog.sku_id
    left join stock_outs on moments.as_of = stock_outs.as_of and moments.sku_id = stock_outs.sku_id
    left join summed on moments.as_of = summed.as_of and moments.sku_id = summed.sku_id
    left join breadth on moments.as_of = breadth.as_of and moments.sku_id = breadth.sku_id
)

select * from joined

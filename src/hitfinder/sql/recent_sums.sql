-- recent_sums: what each SKU counted in the newest stretch before the call's moment. NULL where it was not measured.
-- Grain: sku_id.
-- Reads: catalog, reports, scope, stretch (seconds).
with
recent as (
    select reports.*
    from reports
    cross join scope
    cross join stretch
    where
        reports.superseded_at is null
        and epoch(reports.period_start) >= epoch(scope.as_of) - stretch.seconds
),

summed as (
    select
        sku_id,
        cast(sum(impressions) as double) as impressions,
        cast(sum(clicks) as double) as clicks,
        cast(sum(orders) as double) as orders,
        cast(sum(coalesce(units, orders)) as double) as units,
        cast(sum(revenue) as double) as revenue,
        cast(sum(spend) as double) as spend
    from recent
    group by sku_id
),

complete as (
    select
        catalog.sku_id,
        summed.impressions,
        summed.clicks,
        summed.orders,
        summed.units,
        summed.revenue,
        summed.spend
    from catalog
    left join summed on catalog.sku_id = summed.sku_id
)

select * from complete

-- price_weeks: for each SKU and week, the units sold, what they brought, and the traffic.
-- Grain: sku_id, week.
-- Reads: reports.
with
weekly as (
    select
        sku_id,
        cast(floor(epoch(period_start) / 604800.0) as bigint) as week,
        cast(sum(units) as double) as units,
        cast(sum(revenue) as double) as revenue,
        cast(sum(coalesce(clicks, impressions)) as double) as traffic
    from reports
    where superseded_at is null and units is not null and revenue is not null
    group by sku_id, cast(floor(epoch(period_start) / 604800.0) as bigint)
)

select * from weekly

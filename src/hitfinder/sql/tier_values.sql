-- tier_values: what each SKU earned a day of late, and what it sold in the last stretch and in the one before.
-- Grain: sku_id.
-- Reads: catalog, reports, scope.
with
dated as (
    select
        sku_id,
        {value} as value,
        {sold} as sold,
        (epoch(scope.as_of) - epoch(period_start)) / 86400.0 as days_back
    from reports
    cross join scope
    where superseded_at is null
),

summed as (
    select
        sku_id,
        -- A period that has just ended is as old as it is long; the stretches are counted from its start.
        cast(sum(value) filter (where days_back <= {window_days}) as double) as value,
        cast(sum(sold) filter (where days_back <= {growth_days}) as double) as sold_now,
        cast(sum(sold) filter (where days_back > {growth_days} and days_back <= 2 * {growth_days}) as double) as sold_before
    from dated
    group by sku_id
),

aged as (
    select
        catalog.sku_id,
        catalog.batch_id,
        (epoch(scope.as_of) - epoch(catalog.launched_at)) / 86400.0 as days,
        coalesce(summed.value, 0) as value,
        coalesce(summed.sold_now, 0) as sold_now,
        coalesce(summed.sold_before, 0) as sold_before
    from catalog
    cross join scope
    left join summed on catalog.sku_id = summed.sku_id
),

by_day as (
    select
        aged.*,
        value / greatest(least(days, {window_days}), 1) as value_per_day
    from aged
)

select * from by_day

-- catalog: the SKUs asked for, with launch, batch and style filled in where the merchant left them out.
-- Grain: sku_id.
-- Reads: skus, reports, scope.
with
first_signals as (
    select
        sku_id,
        min(period_start) as first_period
    from reports
    group by sku_id
),

launched as (
    select
        skus.sku_id,
        skus.batch_id,
        skus.style_id,
        skus.category,
        skus.price,
        skus.title,
        -- A SKU without a launch and without a signal is launched now: it has been on trial for no time at all.
        coalesce(skus.launched_at, first_signals.first_period, scope.as_of) as launched_at
    from skus
    left join first_signals on skus.sku_id = first_signals.sku_id
    cross join scope
),

filled as (
    select
        sku_id,
        -- The ISO week, in words that every engine has: its year is that of its Thursday.
        coalesce(
            batch_id,
            cast(extract(year from date_trunc('week', launched_at) + interval '3' day) as varchar)
            || '-W' || lpad(cast(extract(week from launched_at) as varchar), 2, '0')
        ) as batch_id,
        coalesce(style_id, 'sku:' || sku_id) as style_id,
        coalesce(category, '(none)') as category,
        cast(price as double) as price,
        title,
        launched_at
    from launched
)

select * from filled

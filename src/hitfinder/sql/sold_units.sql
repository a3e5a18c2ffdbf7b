-- sold_units: what each SKU sold in all and within a stretch of time, and for how much of the stretch it was in stock.
-- Grain: sku_id.
-- Reads: stretches (sku_id, begins, ends: seconds), skus, reports, last_stock_outs (stock_outs at the call's moment),
-- scope.
with
summed as (
    select
        stretches.sku_id,
        sum(reports.units) as units,
        sum(reports.units) filter (
            where epoch(reports.period_start) >= stretches.begins and epoch(reports.period_start) < stretches.ends
        ) as stretch_units,
        count(*) as n_reports
    from stretches
    inner join reports on stretches.sku_id = reports.sku_id
    where reports.superseded_at is null
    group by stretches.sku_id
),

told as (
    select
        stretches.sku_id,
        skus.stock,
        last_stock_outs.sold_out_second is not null as is_sold_out,
        -- Of a SKU that was never reported nothing was sold; one that was reported without units was not measured.
        case when summed.n_reports is null then 0 else summed.units end as units,
        case when summed.units is not null then coalesce(summed.stretch_units, 0) end as stretch_units,
        greatest(least(stretches.ends, last_stock_outs.sold_out_second) - stretches.begins, 0) / scope.outcome_seconds
        as in_stock
    from stretches
    inner join skus on stretches.sku_id = skus.sku_id
    left join summed on stretches.sku_id = summed.sku_id
    left join last_stock_outs on stretches.sku_id = last_stock_outs.sku_id
    cross join scope
)

select * from told

-- pairs: for each rate of the funnel, what was counted (num) over what it was counted on (den), so far and late.
-- A rate is summed over the reports in which both sides were measured; a day on trial counts whether or not anything
-- happened on it. Sums are decimals: they come out the same in any order, on any number of threads.
-- The typical size of an order is counted as a sum of logs, each report's mean order as often as it has orders, so that
-- num / den is the log of a geometric mean: one bulk order would be most of a plain mean, and says little about the next
-- one. Of reports with many orders it is a mean of means; orders without a value have no size, nor has a value without
-- orders in its report.
-- Grain: as_of, sku_id, rate.
-- Reads: visible, totals, rates (rate, ...: the rates that history measured), scope.
with
counted as (
    select as_of, sku_id, is_late, 'clicks_per_impression' as rate, cast(clicks as decimal(18, 6)) as num, cast(impressions as decimal(18, 6)) as den
    from visible
    where clicks is not null and impressions is not null
    union all
    select as_of, sku_id, is_late, 'favorites_per_impression' as rate, cast(favorites as decimal(18, 6)) as num, cast(impressions as decimal(18, 6)) as den
    from visible
    where favorites is not null and impressions is not null
    union all
    select as_of, sku_id, is_late, 'carts_per_impression' as rate, cast(carts as decimal(18, 6)) as num, cast(impressions as decimal(18, 6)) as den
    from visible
    where carts is not null and impressions is not null
    union all
    select as_of, sku_id, is_late, 'orders_per_impression' as rate, cast(orders as decimal(18, 6)) as num, cast(impressions as decimal(18, 6)) as den
    from visible
    where orders is not null and impressions is not null
    union all
    select as_of, sku_id, is_late, 'units_per_impression' as rate, cast(units as decimal(18, 6)) as num, cast(impressions as decimal(18, 6)) as den
    from visible
    where units is not null and impressions is not null
    union all
    select as_of, sku_id, is_late, 'revenue_per_impression' as rate, cast(revenue as decimal(18, 6)) as num, cast(impressions as decimal(18, 6)) as den
    from visible
    where revenue is not null and impressions is not null
    union all
    select as_of, sku_id, is_late, 'favorites_per_click' as rate, cast(favorites as decimal(18, 6)) as num, cast(clicks as decimal(18, 6)) as den
    from visible
    where favorites is not null and clicks is not null
    union all
    select as_of, sku_id, is_late, 'carts_per_click' as rate, cast(carts as decimal(18, 6)) as num, cast(clicks as decimal(18, 6)) as den
    from visible
    where carts is not null and clicks is not null
    union all
    select as_of, sku_id, is_late, 'orders_per_click' as rate, cast(orders as decimal(18, 6)) as num, cast(clicks as decimal(18, 6)) as den
    from visible
    where orders is not null and clicks is not null
    union all
    select as_of, sku_id, is_late, 'revenue_per_click' as rate, cast(revenue as decimal(18, 6)) as num, cast(clicks as decimal(18, 6)) as den
    from visible
    where revenue is not null and clicks is not null
    union all
    select as_of, sku_id, is_late, 'saves_per_click' as rate, cast(coalesce(favorites, 0) + coalesce(carts, 0) as decimal(18, 6)) as num, cast(clicks as decimal(18, 6)) as den
    from visible
    where coalesce(favorites, carts) is not null and clicks is not null
    union all
    select as_of, sku_id, is_late, 'revenue_per_order' as rate, cast(revenue as decimal(18, 6)) as num, cast(orders as decimal(18, 6)) as den
    from visible
    where revenue is not null and orders is not null
    union all
    select as_of, sku_id, is_late, 'typical_revenue_per_order' as rate, cast(case when revenue > 0 and orders > 0 then orders * ln(cast(revenue as double) / orders) else 0 end as decimal(18, 6)) as num, cast(case when revenue > 0 then orders else 0 end as decimal(18, 6)) as den
    from visible
    where revenue is not null and orders is not null
    union all
    select as_of, sku_id, is_late, 'units_per_order' as rate, cast(units as decimal(18, 6)) as num, cast(orders as decimal(18, 6)) as den
    from visible
    where units is not null and orders is not null
    union all
    select as_of, sku_id, is_late, 'typical_units_per_order' as rate, cast(case when units > 0 and orders > 0 then orders * ln(cast(units as double) / orders) else 0 end as decimal(18, 6)) as num, cast(case when units > 0 then orders else 0 end as decimal(18, 6)) as den
    from visible
    where units is not null and orders is not null
    union all
    select as_of, sku_id, is_late, 'refunds_per_revenue' as rate, cast(refunds as decimal(18, 6)) as num, cast(revenue as decimal(18, 6)) as den
    from visible
    where refunds is not null and revenue is not null
    union all
    select as_of, sku_id, is_late, 'visitors_per_day' as rate, cast(visitors as decimal(18, 6)) as num, cast(null as decimal(18, 6)) as den
    from visible
    where visitors is not null
    union all
    select as_of, sku_id, is_late, 'clicks_per_day' as rate, cast(clicks as decimal(18, 6)) as num, cast(null as decimal(18, 6)) as den
    from visible
    where clicks is not null
    union all
    select as_of, sku_id, is_late, 'favorites_per_day' as rate, cast(favorites as decimal(18, 6)) as num, cast(null as decimal(18, 6)) as den
    from visible
    where favorites is not null
    union all
    select as_of, sku_id, is_late, 'carts_per_day' as rate, cast(carts as decimal(18, 6)) as num, cast(null as decimal(18, 6)) as den
    from visible
    where carts is not null
    union all
    select as_of, sku_id, is_late, 'orders_per_day' as rate, cast(orders as decimal(18, 6)) as num, cast(null as decimal(18, 6)) as den
    from visible
    where orders is not null
    union all
    select as_of, sku_id, is_late, 'units_per_day' as rate, cast(units as decimal(18, 6)) as num, cast(null as decimal(18, 6)) as den
    from visible
    where units is not null
    union all
    select as_of, sku_id, is_late, 'revenue_per_day' as rate, cast(revenue as decimal(18, 6)) as num, cast(null as decimal(18, 6)) as den
    from visible
    where revenue is not null
    union all
    select as_of, sku_id, is_late, 'visitors_again_per_day' as rate, cast(visitors as decimal(18, 6)) as num, cast(null as decimal(18, 6)) as den
    from visible
    where visitors is not null and is_after_launch
    union all
    select as_of, sku_id, is_late, 'clicks_again_per_day' as rate, cast(clicks as decimal(18, 6)) as num, cast(null as decimal(18, 6)) as den
    from visible
    where clicks is not null and is_after_launch
    union all
    select as_of, sku_id, is_late, 'orders_again_per_day' as rate, cast(orders as decimal(18, 6)) as num, cast(null as decimal(18, 6)) as den
    from visible
    where orders is not null and is_after_launch
    union all
    select as_of, sku_id, is_late, 'units_again_per_day' as rate, cast(units as decimal(18, 6)) as num, cast(null as decimal(18, 6)) as den
    from visible
    where units is not null and is_after_launch
    union all
    select as_of, sku_id, is_late, 'revenue_again_per_day' as rate, cast(revenue as decimal(18, 6)) as num, cast(null as decimal(18, 6)) as den
    from visible
    where revenue is not null and is_after_launch
),

summed as (
    select
        as_of,
        sku_id,
        rate,
        sum(num) as num,
        sum(den) as den,
        sum(num) filter (where is_late) as num_late,
        sum(den) filter (where is_late) as den_late
    from counted
    group by as_of, sku_id, rate
),

expected as (
    select
        totals.as_of,
        totals.sku_id,
        totals.batch_id,
        totals.category,
        totals.style_id,
        -- How often it was seen where this rate looks.
        case when rates.rate like '%_again_per_day' then totals.again_periods else totals.active_periods end
        as seen_periods,
        rates.rate,
        case
            when rates.rate like '%_again_per_day' then greatest(totals.days - scope.period_seconds / 86400.0, 0)
            when rates.rate like '%_per_day' then totals.days
        end as days
    from totals
    cross join rates
    cross join scope
),

joined as (
    select
        expected.as_of,
        expected.sku_id,
        expected.batch_id,
        expected.category,
        expected.style_id,
        expected.rate,
        -- A SKU seen without this count was not measured; a SKU not seen at all, or never again, has counted nothing.
        case
            when summed.rate is not null then summed.num
            when expected.seen_periods = 0 then cast(0 as decimal(18, 6))
        end as num,
        case
            when expected.days is not null then cast(expected.days as decimal(18, 6))
            else summed.den
        end as den,
        summed.num_late,
        case
            when expected.days is not null then cast(expected.days / 2 as decimal(18, 6))
            else summed.den_late
        end as den_late
    from expected
    left join summed
        on
            expected.as_of = summed.as_of
            and expected.sku_id = summed.sku_id
            and expected.rate = summed.rate
),

complete as (
    select
        as_of,
        sku_id,
        batch_id,
        category,
        style_id,
        rate,
        coalesce(num, 0) as num,
        -- What was not measured has no exposure either, so that it pulls no pool towards 0.
        case when num is null then 0 else coalesce(den, 0) end as den,
        coalesce(num_late, 0) as num_late,
        case when num is null then 0 else coalesce(den_late, 0) end as den_late,
        num is not null as is_measured
    from joined
)

select * from complete

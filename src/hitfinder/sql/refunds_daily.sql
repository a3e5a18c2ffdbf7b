-- refunds_daily: what was known of each SKU at each moment, per day: revenue, orders and refunds.
-- A day is one step of refund_grid (a period, where periods are longer); `age` is how many whole steps have gone by
-- since it began. Refunds count with the revenue beside which they were measured: a report without refunds says
-- nothing about returns, so its revenue is in `revenue` alone. Where orders were not counted, units stand in, and where
-- neither was, each report with revenue is one.
-- Grain: as_of, sku_id, day.
-- Reads: refund_moments (as_of, sku_id), refund_grid (origin, step_seconds), reports.
with
layout as (
    select
        -- Refunds may come in rows of their own, and never beside revenue: then a row without one means that none came.
        count(refunds) > 0 and count(case when revenue is not null then refunds end) = 0 as is_apart
    from reports
),

seen as (
    select
        refund_moments.as_of,
        refund_moments.sku_id,
        cast(
            floor((epoch(reports.period_start) - epoch(refund_grid.origin)) / refund_grid.step_seconds) as bigint
        ) as day,
        (epoch(refund_moments.as_of) - epoch(refund_grid.origin)) / refund_grid.step_seconds as now,
        reports.revenue,
        coalesce(reports.orders, reports.units, case when reports.revenue > 0 then 1 else 0 end) as orders,
        reports.refunds,
        reports.revenue is not null and (reports.refunds is not null or layout.is_apart) as is_measured,
        layout.is_apart
    from refund_moments
    inner join reports on refund_moments.sku_id = reports.sku_id
    cross join refund_grid
    cross join layout
    where
        reports.known_at <= refund_moments.as_of
        and reports.period_start < refund_moments.as_of
        and (reports.superseded_at is null or reports.superseded_at > refund_moments.as_of)
),

valued as (
    select
        seen.*,
        -- Sum of squared order values, as far as sums tell: what weighs one bulk order against many small ones.
        cast(
            cast(revenue as double) * cast(revenue as double) / greatest(cast(orders as double), 1)
            as decimal(38, 4)
        ) as squares
    from seen
),

summed as (
    select
        as_of,
        sku_id,
        day,
        cast(floor(max(now) - day) as bigint) as age,
        sum(revenue) as revenue,
        sum(orders) as orders,
        sum(refunds) filter (where is_measured or is_apart) as refunds,
        sum(revenue) filter (where is_measured) as measured_revenue,
        sum(orders) filter (where is_measured) as measured_orders,
        sum(squares) filter (where is_measured) as squares
    from valued
    group by as_of, sku_id, day
)

select * from summed

-- refunds_evidence: each SKU's sums at each moment, and how much of its revenue's refunds should have come by then.
-- `developed` is revenue x the share of the refunds that is known at its age; older than the table of shares is all.
-- Grain: as_of, sku_id.
-- Reads: refunds_daily, refund_development (age, share).
with
developed as (
    select
        refunds_daily.*,
        measured_revenue * cast(coalesce(refund_development.share, 1) as decimal(9, 8)) as developed
    from refunds_daily
    left join refund_development on refunds_daily.age = refund_development.age
),

summed as (
    select
        as_of,
        sku_id,
        cast(sum(revenue) as double) as revenue,
        cast(sum(orders) as double) as orders,
        cast(sum(refunds) as double) as refunds,
        cast(sum(measured_revenue) as double) as measured_revenue,
        cast(sum(measured_orders) as double) as measured_orders,
        cast(sum(squares) as double) as squares,
        cast(sum(developed) as double) as developed
    from developed
    group by as_of, sku_id
)

select * from summed
